"""SGLang's expert distribution in the modes `stat` and `stat_approx`: counts of every forward pass, summed over the ranks.

S steps, L layers (dense ones too), E logical experts.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.system import torch_file
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.count_arrays import checked_array, counts_file, whole_counts
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile

FULL = (
    "no row of its buffer is empty: if it was a ring that wrapped (a buffer size that is not -1), the passes before the last {} are "
    "missing, and the order of these is not known"
)
GAP = "{} forward passes between others have no choices: idle ones, or the ring began in its middle, and its first rows are the last passes"


def read_stat(source: InputFile, document: dict[str, Any], options: ImportOptions) -> TraceFile:
    """The counts of the passes that the buffer holds; ValueError if they are no counts."""
    what = "logical_count"
    values = checked_array(torch_file.array(document[what]), what, [3])
    if values.dtype.kind not in "iu":
        raise ValueError(f"{what} is of type {values.dtype}, not of whole numbers")
    counts_SLE, _ = whole_counts(values, what)
    kept_SLE, doubt = filled(counts_SLE)
    file = counts_file(source, "sglang", kept_SLE, options, "all")
    return replace(file, report=file.report and file.report.model_copy(update={"order_doubt": doubt}))


def filled(counts_SLE: Ints) -> tuple[Ints, str]:
    """The rows from the first to the last that has choices, and what a ring may have lost; an empty string if it lost nothing."""
    used = np.flatnonzero(counts_SLE.any(axis=(1, 2)))
    if not len(used):
        return counts_SLE, ""
    kept_SLE = counts_SLE[used[0] : used[-1] + 1]
    if gaps := len(kept_SLE) - len(used):
        return kept_SLE, GAP.format(gaps)
    return kept_SLE, FULL.format(len(used)) if 1 < len(used) == len(counts_SLE) else ""
