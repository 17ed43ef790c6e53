"""The format `imatrix`: llama.cpp's importance matrix as GGUF, which counts how often every expert was chosen.

L layers with experts, E experts.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from moeprof.records.arrays import Floats
from moeprof.records.limits import MAX_LAYERS
from moeprof.records.system.gguf import MAGIC, Gguf, parsed
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.count_arrays import checked_array, counts_file, whole_counts
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

COUNTS = re.compile(r"blk\.(\d{1,6})\.ffn_(gate|up|down|gate_up)_exps\.weight\.counts")
LEGACY = re.compile(rb".{4}.{4}(?:blk\.\d+\.|output|token_embd)[\w.]*weight", re.DOTALL)
"""The beginning of the older format: two numbers and the name of a tensor."""

OTHER = "layer {} has other counts for its down projection than for its gate; those of the gate are used"


def is_imatrix(file: InputFile) -> bool:
    """Whether the file is GGUF with the type of an importance matrix, or one in the older format."""
    written = file.head.startswith(MAGIC) and b"imatrix" in file.head[:4096]
    return written or bool(LEGACY.match(file.head[:128]))


def read_imatrix(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The counts of all layers with experts; UsageError if there are none, or the file is damaged."""
    source = only(files)
    with reported(
        f"imatrix {source.path}", "Record it with llama-imatrix of llama.cpp since August 2025, as GGUF (-o FILE.gguf)."
    ):
        if not source.head.startswith(MAGIC):
            raise ValueError("the older format (.dat) has one count for all experts of a tensor")
        document = parsed(source.read())
        if document.metadata.get("general.type") != "imatrix":
            raise ValueError(f"GGUF of the type {document.metadata.get('general.type')!r}, not an imatrix")
        found, notes = counts_by_layer(document)
        if not found:
            raise ValueError("no counts of experts in it (blk.N.ffn_gate_exps.weight.counts): the model is dense")
        if len({len(row) for row in found.values()}) > 1:
            raise ValueError("layers have different numbers of experts")
        values = checked_array(np.stack(list(found.values())), "counts", [2])
        whole_LE, more = whole_counts(values, "counts")
        counts_SLE = np.zeros((1, max(found) + 1, whole_LE.shape[1]), np.int64)
        counts_SLE[0, list(found)] = whole_LE
        top_k = top_k_of(document.metadata, whole_LE.sum(axis=1).tolist(), whole_LE.shape[1])
        return counts_file(source, "imatrix", counts_SLE, options, "stated", [*notes, *more], top_k)


def counts_by_layer(document: Gguf) -> tuple[dict[int, Floats], list[str]]:
    """The counts of every layer, (E,), and a note on layers whose matrices were not multiplied by the same tokens."""
    matrices: dict[int, dict[str, Floats]] = defaultdict(dict)
    for name in document.tensors:
        if (match := COUNTS.fullmatch(name)) and int(match[1]) < MAX_LAYERS:
            with np.errstate(invalid="ignore"):  # what is no number is refused later
                matrices[int(match[1])][match[2]] = document.tensor(name).astype(np.float64).ravel()
    found, differing = {}, []
    for layer, rows in sorted(matrices.items()):
        found[layer] = first = next(rows[kind] for kind in ("gate", "gate_up", "up", "down") if kind in rows)
        if any(not np.array_equal(first, row, equal_nan=True) for row in rows.values()):
            differing.append(layer)
    return found, [OTHER.format(differing[0])] if differing else []


def top_k_of(metadata: dict[str, Any], sums: list[int], num_experts: int) -> int | None:
    """How many experts a token uses: the choices of every layer divided by the tokens of all chunks; None if that is no whole number."""
    chunks, size = (metadata.get(f"imatrix.chunk_{name}") for name in ("count", "size"))
    if type(chunks) is not int or type(size) is not int or chunks * size < 1 or len(set(sums)) > 1:
        return None
    top_k, rest = divmod(sums[0], chunks * size)
    return top_k if not rest and 1 <= top_k <= num_experts else None


IMATRIX = TraceFormat(
    "imatrix",
    "an importance matrix of llama.cpp (*.gguf)",
    recognise=is_imatrix,
    read=read_imatrix,
    unwritten=(
        "it also has the sums of squared activations (in_sum2) by which llama-quantize weighs columns, and no count says what they were"
    ),
    loads_only=True,
)
