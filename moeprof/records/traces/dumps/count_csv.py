"""The format `count-csv`: one line per layer and expert with its count, or one line per choice.

Older versions of SGLang write `layer_id,expert_id,count` for every rank, without zeros; tools around llama.cpp write
`layer,expert,count`, or `layer,expert` for every choice.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from moeprof.records.arrays import Ints
from moeprof.records.limits import MAX_EXPERTS, MAX_LAYERS
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, check_memory, reported
from moeprof.records.traces.count_arrays import added_up, counts_file, counts_of
from moeprof.records.traces.csv_table import header_of, line_of, table_of
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

HEADERS = ({"layer_id", "expert_id", "count"}, {"layer", "expert", "count"}, {"layer", "expert"})
REMEDY = "Give a table with the columns layer,expert,count or layer_id,expert_id,count, or layer,expert with a line per choice."


def is_count_csv(file: InputFile) -> bool:
    """Whether the header line has the columns of such a table and no others."""
    return set(header_of(file.head_text)) in HEADERS if b"layer" in file.head else False


def read_count_csv(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The counts of all files, which are those of the ranks of one recording; UsageError if a line is no count."""
    tables = []
    for source in files:
        with reported(f"count table {source.path}", REMEDY):
            tables.append(rows_of_text(source.text()))
    with reported(f"count table {files[0].path}", REMEDY):
        layer_R, expert_R, count_R = (np.concatenate(column) for column in zip(*tables, strict=True))
        if not len(layer_R):
            raise ValueError("no lines behind its header")
        most = int(expert_R.max()) + 1
        if options.experts is not None and options.experts < most:
            raise ValueError(f"expert {most - 1} occurs, but --experts states {options.experts}")
        shape = (1, int(layer_R.max()) + 1, options.experts or most)
        check_memory(shape[1] * shape[2] * 8)
        counts_SLE = np.zeros(shape, np.int64)
        np.add.at(counts_SLE[0], (layer_R, expert_R), count_R)
        guessed = "the number of experts is one more than the highest id; --experts states it"
        return counts_file(files[0], "count-csv", counts_SLE, options, "stated", [] if options.experts else [guessed])


def rows_of_text(text: str) -> tuple[Ints, Ints, Ints]:
    """Layer, expert and count of every line; ValueError, with the line, for a value out of range."""
    old = "layer_id" in header_of(text)
    names = ("layer_id", "expert_id") if old else ("layer", "expert")
    needed = {name: pa.int64() for name in names} | ({"count": pa.int64()} if old else {})
    table = table_of(text, needed, {"count": pa.int64()})
    layer_R, expert_R = (table[name].to_numpy() for name in names)
    count_R = table["count"].to_numpy() if "count" in table.column_names else np.ones(len(layer_R), np.int64)
    limits = zip((*names, "count"), (layer_R, expert_R, count_R), (MAX_LAYERS, MAX_EXPERTS, 2**53), strict=True)
    for name, values, limit in limits:
        if len(wrong := np.flatnonzero((values < 0) | (values >= limit))):
            raise ValueError(f"line {line_of(text, int(wrong[0]))}: {name} {values[wrong[0]]} is not from 0 to {limit - 1:,}")
    return layer_R, expert_R, count_R


def write_count_csv(file: TraceFile, path: Path) -> None:
    """Writes `layer,expert,count` with the counts of all steps and domains, zeros too, so that every expert is in it."""
    counts = counts_of(file)
    rows = zip(counts.layers, added_up(counts).tolist(), strict=True)
    lines = (f"{layer},{expert},{count}\n" for layer, row in rows for expert, count in enumerate(row))
    write_text(path, "layer,expert,count\n" + "".join(lines))


COUNT_CSV = TraceFormat(
    "count-csv",
    "a table of counts (layer,expert,count)",
    recognise=is_count_csv,
    read=read_count_csv,
    write=write_count_csv,
    endings=(".counts.csv",),
    omits=frozenset({"top_k"}),
    loads_only=True,
)
