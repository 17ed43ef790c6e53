"""Formats that are one matrix of loads: KTransformers' frequency files, EPLB's weights, and the counts of SGLang's expert location.

L layers, E experts.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Ints
from moeprof.records.system import torch_file
from moeprof.records.system.files import replacing, write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.count_arrays import (
    RowKind,
    added_up,
    checked_array,
    counts_file,
    counts_of,
    rows_of,
    whole_counts,
    with_dense_layers,
)
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.logs.arrays import NPY, array_of_npy
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, TraceReader, only

BARE = re.compile(rb"/data\.pkl.{0,256}?\x80\x02ctorch\._utils\n_rebuild_tensor.{0,64}?ctorch\n(\w+)Storage", re.DOTALL)
"""The beginning of a file of torch.save that is a tensor and nothing else, and the type of its numbers."""

NPY_2D = re.compile(rb"\x93NUMPY.{2,6}\{.{0,99}'shape': \(\d+, \d+\)", re.DOTALL)
"""The beginning of a NumPy array of two dimensions."""

WHOLE = (b"Long", b"Int", b"Short", b"Char", b"Byte")


def has_key(file: InputFile, key: str) -> bool:
    """Whether a file of torch.save has a key, in a dict at any depth."""
    written = b"X" + len(key).to_bytes(4, "little") + key.encode()
    return torch_file.is_torch_file(file) and written in file.head


def bare(file: InputFile) -> bytes | None:
    """The type of the numbers of a file of torch.save that is one tensor; None for any other file."""
    found = BARE.search(file.head[:1024])
    return found[1] if found else None


def matrix_reader(kind: str, remedy: str, rows: RowKind, values_of: Callable[[InputFile], npt.NDArray[Any]]) -> TraceReader:
    """A reader of one matrix (L, E), or of one for every step, which are added up if the format has no steps."""

    def read(files: Any, options: ImportOptions) -> TraceFile:
        source = only(files)
        with reported(f"{kind} {source.path}", remedy):
            values = checked_array(values_of(source), "the matrix", [2, 3])
            counts, notes = whole_counts(values, "the matrix")
            return counts_file(source, kind, counts if counts.ndim == 3 else counts[None], options, rows, notes)

    return read


def table_of(document: Any, keys: tuple[str, ...]) -> npt.NDArray[Any]:
    """The array under the first of some keys of a document of torch.save, or the array that the document is."""
    for key in keys:
        if isinstance(document, dict) and key in document:
            document = document[key]
            break
    values = torch_file.array(document)
    if values is None:
        raise ValueError(f"it is no tensor, and has no tensor under {' or '.join(keys)}")
    return values


def kt_values(file: InputFile) -> npt.NDArray[Any]:
    """The tensor of a frequency file."""
    return table_of(torch_file.load(file), ("logical_count",))


def eplb_values(file: InputFile) -> npt.NDArray[Any]:
    """The weights in a file of NumPy or torch; ValueError if it is damaged."""
    if file.head.startswith(NPY):
        return array_of_npy(file.read(), "the matrix")
    return table_of(torch_file.load(file), ("weight",))


def location_values(file: InputFile) -> npt.NDArray[Any]:
    """The counts of a file of SGLang's expert location; ValueError if it has only a map."""
    torch_made = torch_file.is_torch_file(file)
    document = torch_file.load(file) if torch_made else file.json()
    if not isinstance(document, dict) or "logical_count" not in document:
        raise ValueError("it has no logical_count: it says where experts are, and not how often they are chosen")
    found = document["logical_count"]
    return table_of(found, ()) if torch_made else rows_of(found, "logical_count")


def is_eplb(file: InputFile) -> bool:
    """Whether the file has the tensors of EPLB's example, or is a matrix of NumPy or of fractions."""
    stored = has_key(file, "weight") and (has_key(file, "num_replicas") or has_key(file, "phy2log"))
    return stored or bare(file) in (b"Float", b"Double", b"Half", b"BFloat16") or bool(NPY_2D.match(file.head))


def is_location(file: InputFile) -> bool:
    """Whether the file has the keys of SGLang's expert location, as JSON or as a file of torch."""
    text = file.head_text.lstrip() if file.head[:1] != b"P" else ""
    return bool(re.match(r'\{\s*"(logical_count|physical_to_logical_map)"', text)) or has_key(file, "physical_to_logical_map")


def total(file: TraceFile, *, dense: bool) -> Ints:
    """Choices of every expert, (L, E), of all layers of the model or of those with experts."""
    counts = counts_of(file)
    total_LE = added_up(counts)
    return with_dense_layers(total_LE[None], counts.layers)[0] if dense else total_LE


def write_kt(file: TraceFile, path: Path) -> None:
    """Writes one tensor of all layers of the model."""
    torch_file.save(path, total(file, dense=True))


def write_eplb(file: TraceFile, path: Path) -> None:
    """Writes the matrix of the layers with experts, as NumPy does for *.npy and else as torch does."""
    if path.suffix != ".npy":
        torch_file.save(path, total(file, dense=False).astype(np.float64))
        return
    with replacing(path) as partial, partial.open("wb") as opened:
        np.save(opened, total(file, dense=False).astype(np.float64))


def write_location(file: TraceFile, path: Path) -> None:
    """Writes the counts of all layers of the model, as torch does for *.pt and else as JSON."""
    total_LE = total(file, dense=True)
    if path.suffix == ".pt":
        torch_file.save(path, {"logical_count": total_LE})
    else:
        rows = ",\n".join(str(row) for row in total_LE.tolist())
        write_text(path, '{"logical_count": [\n' + rows + "\n]}\n")


KTRANSFORMERS = TraceFormat(
    "ktransformers",
    "a frequency file of KTransformers (*.pt)",
    recognise=lambda file: has_key(file, "logical_count") or bare(file) in WHOLE,
    read=matrix_reader(
        "ktransformers",
        "Give the tensor of --kt-expert-frequency-file: a row per layer, a column per expert.",
        "all",
        kt_values,
    ),
    write=write_kt,
    omits=frozenset({"top_k"}),
    loads_only=True,
)
EPLB = TraceFormat(
    "eplb",
    "a matrix of loads for EPLB (*.npy, *.pt)",
    recognise=is_eplb,
    read=matrix_reader("eplb", "Give a matrix with a row per MoE layer and a column per expert.", "moe", eplb_values),
    write=write_eplb,
    omits=frozenset({"top_k", "layers"}),
    endings=(".npy",),
    loads_only=True,
)
SGLANG_LOCATION = TraceFormat(
    "sglang-location",
    "counts for SGLang's --init-expert-location (*.json, *.pt)",
    recognise=is_location,
    read=matrix_reader(
        "sglang-location",
        'Give {"logical_count": a row per layer, a column per expert}; moeprof placement show reads a map of experts.',
        "all",
        location_values,
    ),
    write=write_location,
    omits=frozenset({"top_k"}),
    loads_only=True,
)
