"""Counts of experts as arrays of other tools hold them: checked, with the numbers of their layers, and back again.

S steps, L layers, E experts.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Flags, Ints
from moeprof.records.errors import OptionError
from moeprof.records.limits import MAX_EXPERTS, MAX_LAYERS
from moeprof.records.name import name_from
from moeprof.records.system.archives import unpacked_name
from moeprof.records.system.inputs import InputFile, check_memory
from moeprof.records.traces.choice_counts import ALL_DOMAINS, ChoiceCounts
from moeprof.records.traces.import_options import ImportOptions, ImportReport
from moeprof.records.traces.layer_map import CORRECT, LayerMap, RowMap
from moeprof.records.traces.trace_format import TraceFile

RowKind = Literal["stated", "all", "moe"]
"""What the rows of an array are: the layers that the file names by number, all layers of the model, or its MoE layers in order."""

ROUNDED_MEAN = 100
"""Loads that are not whole numbers are rounded if a layer's experts have so many on average."""

UNMAPPED = "its layers have no numbers of the model and are counted from 0; --layers or --model-config states them"


def checked_array(values: npt.NDArray[Any] | None, what: str, dims: Sequence[int]) -> npt.NDArray[Any]:
    """The array; ValueError if there is none, or it has another number of dimensions, no values, or too many layers or experts."""
    if values is None:
        raise ValueError(f"{what} is no array of numbers")
    if values.ndim not in dims:
        raise ValueError(f"{what} has the shape {values.shape}, but {' or '.join(map(str, dims))} dimensions are needed")
    if not values.size:
        raise ValueError(f"{what} is empty: shape {values.shape}")
    if values.shape[-1] > MAX_EXPERTS or values.shape[-2] > MAX_LAYERS:
        raise ValueError(f"{what} has the shape {values.shape}, more than {MAX_LAYERS:,} layers or {MAX_EXPERTS:,} experts")
    return values


def whole_counts(values: npt.NDArray[Any], what: str) -> tuple[Ints, list[str]]:
    """Counts as whole numbers, and a note if they had to be rounded; ValueError if they are no counts."""
    if values.dtype.kind not in "iuf":
        raise ValueError(f"{what} is of type {values.dtype}, not of numbers")
    check_memory(values.size * 16)
    if not np.isfinite(values).all():
        raise ValueError(f"{what} has values that are not finite (NaN or infinite)")
    if values.min() < 0 or values.max() >= 2**53:
        raise ValueError(f"{what} has a count that is negative or above 2^53")
    rounded = np.rint(values)
    notes = []
    if values.dtype.kind == "f" and not (rounded == values).all():
        if (sums := values.sum(axis=-1))[sums > 0].min() < ROUNDED_MEAN * values.shape[-1]:
            raise ValueError(
                f"{what} has fractions, such as {values[rounded != values][0]:g}, and too few choices to round them"
            )
        notes.append("its loads are not whole numbers and were rounded")
    return rounded.astype(np.int64), notes


def check_stated(num_experts: int, top_k: int | None, options: ImportOptions) -> None:
    """ValueError if a user states another number of experts, or of choices, than the file has."""
    if options.experts not in (None, num_experts):
        raise OptionError(
            f"it has {num_experts} experts, but --experts states {options.experts}",
            "Correct or remove --experts or --model-config.",
        )
    if top_k is not None and options.top_k not in (None, top_k):
        raise OptionError(
            f"a token has {top_k} choices, but --top-k states {options.top_k}", "Correct or remove --top-k or --model-config."
        )


def placed(used_L: Flags, options: ImportOptions, rows: RowKind) -> tuple[RowMap, list[str]]:
    """The layers that have experts, and notes, of an array in whose layers there are choices or none, (L,).

    Without a map, every row of an array of MoE layers has experts, and in others layers without choices are dense.
    ValueError if the array does not fit the map, there are choices in a layer without experts, or none at all.
    """
    used = tuple(np.flatnonzero(used_L).tolist())
    if not used:
        raise ValueError("no choices in it: every count is 0")
    stated, notes = options.layers, []
    if stated is None and rows == "moe":
        stated, notes = LayerMap(tuple(range(len(used_L)))), [UNMAPPED]
    if stated is None:
        return RowMap(used, used), []
    found = RowMap(stated.moe_layers, stated.moe_layers)
    if rows == "all" and stated.num_layers not in (None, len(used_L)):
        raise OptionError(f"it has {len(used_L)} layers, but the model has {stated.num_layers}", CORRECT)
    if rows != "stated":
        found = stated.rows(len(used_L))
    if foreign := sorted(set(used) - set(found.rows)):
        raise OptionError(f"layer {foreign[0]} has choices, but the model has no experts there", CORRECT)
    pairs = [(row, layer) for row, layer in zip(found.rows, found.layers, strict=True) if row in used]
    silent = sorted(set(found.layers) - {layer for _, layer in pairs})
    more = f"; further such layers: {len(silent) - 1}" if len(silent) > 1 else ""
    if silent:
        notes.append(f"layer {silent[0]} has experts, but no choices{more}")
    return RowMap(tuple(row for row, _ in pairs), tuple(layer for _, layer in pairs)), notes


def rows_of(document: Any, what: str) -> npt.NDArray[Any]:
    """Nested lists as an array; ValueError if they differ in length, or hold no numbers."""
    try:
        found = np.array(document)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{what} has rows of different lengths") from error
    if found.dtype.kind not in "iuf":
        raise ValueError(f"{what} is no array of numbers")
    return found


def counts_file(
    source: InputFile,
    kind: str,
    counts_SLE: Ints,
    options: ImportOptions,
    rows: RowKind,
    notes: Sequence[str] = (),
    top_k: int | None = None,
    model: str = "",
) -> TraceFile:
    """The content of a file that holds counts, with what the import reports; ValueError as in `placed` and `ChoiceCounts`."""
    check_stated(counts_SLE.shape[2], top_k, options)
    found, more = placed(np.asarray(counts_SLE.any(axis=(0, 2))), options, rows)
    kept_SLE = counts_SLE[:, list(found.rows)]
    counts = ChoiceCounts(list(found.layers), {ALL_DOMAINS: kept_SLE}, top_k or options.top_k, model)
    report = ImportReport(format=kind, kept=int(kept_SLE.any(axis=2).sum()), notes=[*notes, *more])
    return TraceFile(name_of(source), counts=counts, report=report)


def name_of(source: InputFile) -> str:
    """What to call the content of a file: its name without suffixes."""
    return name_from(unpacked_name(source.path).stem, "trace")


def counts_of(file: TraceFile) -> ChoiceCounts:
    """The counts of a file; ValueError if it has none."""
    if file.counts is None:
        raise ValueError(f"{file.name} holds choices of tokens, not counts")
    return file.counts


def added_up(counts: ChoiceCounts) -> Ints:
    """Choices of every expert over all domains and steps, (L, E)."""
    return np.asarray(sum(counts.totals(domain) for domain in counts.counts))


def steps_added_up(counts: ChoiceCounts) -> Ints:
    """Choices of every expert over all domains, step by step, (S, L, E); a domain that has fewer steps ends earlier."""
    total_SLE = np.zeros((counts.num_steps, len(counts.layers), counts.num_experts), np.int64)
    for one_SLE in counts.counts.values():
        total_SLE[: len(one_SLE)] += one_SLE
    return total_SLE


def with_dense_layers(counts_SLE: Ints, layers: Sequence[int]) -> Ints:
    """The counts with a row for every layer of the model up to the last that has experts; those without have zeros."""
    all_SLE = np.zeros((len(counts_SLE), max(layers) + 1, counts_SLE.shape[2]), np.int64)
    all_SLE[:, list(layers)] = counts_SLE
    return all_SLE
