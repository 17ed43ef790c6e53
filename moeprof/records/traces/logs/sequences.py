"""The sequences of a trace as arrays, for formats that hold an array per sequence.

T tokens, L layers, K choices, R rows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from moeprof.records.arrays import Flags
from moeprof.records.errors import UsageError
from moeprof.records.traces.choices import NO_EXPERT, Ids
from moeprof.records.traces.trace_format import TraceFile


@dataclass(frozen=True)
class TokenCube:
    """The tokens of all traces of a file, ordered by rank, domain, sequence and position."""

    layers: list[str]
    experts_TLK: Ids
    """NO_EXPERT where a token has no choices in a layer."""
    group_T: Ids
    """The number of the sequence, counted over ranks and domains."""
    position_T: Ids
    token_id_T: Ids
    decode_T: Flags


def cube_of(file: TraceFile) -> TokenCube:
    """The tokens of a file; ValueError if it has no choices, or a sequence has two tokens at one position."""
    if not file.traces:
        raise ValueError("it holds counts, not choices of tokens")
    layers = sorted({layer for trace in file.traces for layer in trace.header.layers}, key=by_number)
    place = {layer: at for at, layer in enumerate(layers)}
    parts: dict[str, list[Ids]] = {}
    domains = list(dict.fromkeys(name for trace in file.traces for name in trace.names("domain")))
    for trace in file.traces:
        for name in ("sequence", "position", "token_id", "slot", "expert"):
            parts.setdefault(name, []).append(trace.column(name).astype(np.int64))
        for name, known in (("layer", place), ("domain", {one: at for at, one in enumerate(domains)})):
            codes, names = trace.codes(name)
            parts.setdefault(name, []).append(np.array([known.get(one, 0) for one in names], np.int64)[codes])
        for name, value in (("rank", trace.header.rank), ("decode", trace.header.phase == "decode")):
            parts.setdefault(name, []).append(np.full(len(trace), value, np.int64))
    rows = {name: np.concatenate(columns) for name, columns in parts.items()}
    keys = [rows[name] for name in ("rank", "domain", "sequence", "position")]
    order = np.lexsort((rows["slot"], rows["layer"], *reversed(keys)))
    new_R = np.append(True, np.any([np.diff(key[order]) != 0 for key in keys], axis=0))
    new_sequence_R = np.append(True, np.any([np.diff(key[order]) != 0 for key in keys[:3]], axis=0))
    token_R, first_T = np.cumsum(new_R) - 1, order[new_R]
    top_k = max(trace.header.top_k for trace in file.traces)
    experts = np.full((len(first_T), len(layers), top_k), NO_EXPERT)
    experts[token_R, rows["layer"][order], rows["slot"][order]] = rows["expert"][order]
    if (experts != NO_EXPERT).sum() != len(order):
        raise ValueError("a sequence has two tokens at one position")
    return TokenCube(
        layers,
        experts,
        (np.cumsum(new_sequence_R) - 1)[new_R],
        rows["position"][first_T],
        rows["token_id"][first_T],
        rows["decode"][first_T].astype(bool),
    )


def by_number(layer: str) -> tuple[bool, int, str]:
    """A sorting key: `3` before `12`, and other names behind."""
    return not layer.isdecimal(), int(layer) if layer.isdecimal() else 0, layer


@dataclass(frozen=True)
class Recorded:
    """One sequence of a trace, whose rows are of neighbouring positions."""

    experts_TLK: Ids
    """All layers of the model up to the last one with experts; dense ones have expert 0."""
    first: int
    num_prompt: int
    token_ids: list[int] | None
    """Of the rows; None if all are unknown."""


def recorded(file: TraceFile, path: Path, format_name: str) -> list[Recorded]:
    """The sequences of a file, for a format that has an array of all layers; UsageError if one has no place in it."""
    try:
        cube = cube_of(file)
        numbers = numbers_of(cube.layers)
        if (cube.experts_TLK == NO_EXPERT).any():
            raise ValueError("not every token has choices in every layer")
        return list(split(cube, numbers))
    except ValueError as error:
        raise UsageError(
            f"{path}: {file.name} cannot be written as {format_name}: {error}",
            "Write it as route-csv, which holds any choices.",
        ) from error


def numbers_of(layers: Sequence[str]) -> list[int]:
    """Names of layers as numbers; ValueError if one is none."""
    if other := [layer for layer in layers if not layer.isdecimal()]:
        raise ValueError(f"layer {other[0]} has no number")
    return [int(layer) for layer in layers]


def split(cube: TokenCube, numbers: Sequence[int]) -> Iterator[Recorded]:
    """One array per sequence; ValueError if positions are missing, or a prompt follows decoded tokens."""
    experts = np.zeros((len(cube.experts_TLK), max(numbers) + 1, cube.experts_TLK.shape[2]), np.int64)
    experts[:, numbers] = cube.experts_TLK
    ends = np.flatnonzero(np.append(np.diff(cube.group_T) != 0, True)) + 1
    for start, end in zip([0, *ends[:-1]], ends, strict=True):
        position_T, decode_T = cube.position_T[start:end], cube.decode_T[start:end]
        first, rows = int(position_T[0]), int(end - start)
        if (np.diff(position_T) != 1).any() or (np.diff(decode_T.astype(int)) < 0).any():
            raise ValueError("a sequence lacks positions, or has a prompt behind its decoded tokens")
        token_ids = cube.token_id_T[start:end].tolist()
        known = token_ids if max(token_ids) >= 0 else None
        yield Recorded(experts[start:end], first, first + rows - int(decode_T.sum()), known)
