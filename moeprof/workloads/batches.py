"""Padded batches of token sequences.

B sequences, L positions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, zip_longest
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from moeprof.parallel.group import ALONE, Group
from moeprof.workloads.tokenizers import PAD

S = TypeVar("S")


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences padded on the right."""

    domain: str
    index: int
    """Number of earlier batches of the workload on this rank."""
    tokens_BL: npt.NDArray[np.int64]
    real_BL: npt.NDArray[np.bool_]
    sequence_B: npt.NDArray[np.int64]
    """Index of each sequence within the workload; unique over all ranks."""
    shortest: int = 0
    """Tokens of the shortest sequence in the batches of all ranks at the same step."""


def token_sequences(batches: Iterable[Batch]) -> dict[str, list[list[int]]]:
    """The sequences of batches by domain, without padding."""
    found: dict[str, list[list[int]]] = {}
    for batch in batches:
        rows = zip(batch.tokens_BL, batch.real_BL, strict=True)
        found.setdefault(batch.domain, []).extend(tokens_L[real_L].tolist() for tokens_L, real_L in rows)
    return found


def make_batches(
    domain: str,
    sequences: Sequence[Sequence[int]],
    batch_size: int,
    *,
    max_batches: int,
    fixed_length: int | None,
    first_batch: int,
    group: Group = ALONE,
) -> list[Batch]:
    """Full batches in order; a text that is too short for one gives a single smaller batch.

    Ranks take batches in turn. Those of one step have one shape, and a rank for which no batch is left takes one of nothing but
    padding, so that all ranks do as many steps.
    """
    kept = whole_batches(sequences, batch_size)[: max_batches * group.size * batch_size]
    groups = [kept[start : start + batch_size] for start in range(0, len(kept), batch_size)]
    steps = [groups[start : start + group.size] for start in range(0, len(groups), group.size)]
    return [
        pad_alike(domain, index, step, fixed_length, (index * group.size + group.rank) * batch_size, group.rank)
        for index, step in enumerate(steps, first_batch)
    ]


def whole_batches(sequences: Sequence[S], batch_size: int) -> Sequence[S]:
    """The first sequences that fill batches, or all if they are too few for one."""
    return sequences[: len(sequences) // batch_size * batch_size or None]


def pad_alike(
    domain: str, index: int, step: Sequence[Sequence[Sequence[int]]], fixed_length: int | None, first_sequence: int, rank: int
) -> Batch:
    """The batch of one rank, with the shape that all ranks' batches have in `step`."""
    lengths = [len(sequence) for batch in step for sequence in batch]
    mine = step[rank] if rank < len(step) else [()] * len(step[0])
    batch = pad(domain, index, mine, fixed_length or max(lengths), first_sequence)
    return replace(batch, shortest=min(lengths))


def mixed(batches: Sequence[Batch], size: int) -> Batch:
    """`size` sequences, one of each domain in turn; starts again when all have been taken."""
    by_domain: dict[str, list[tuple[Batch, int]]] = {}
    for batch in batches:
        by_domain.setdefault(batch.domain, []).extend((batch, row) for row in range(len(batch.tokens_BL)))
    turns = [found for turn in zip_longest(*by_domain.values()) for found in turn if found is not None]
    chosen = list(islice(cycle(turns), size))
    tokens = [batch.tokens_BL[row][: int(batch.real_BL[row].sum())].tolist() for batch, row in chosen]
    longest = max(batch.tokens_BL.shape[1] for batch, _ in chosen)
    padded = pad("", 0, tokens, longest, 0)
    return replace(padded, sequence_B=np.array([batch.sequence_B[row] for batch, row in chosen]))


def pad(domain: str, index: int, sequences: Sequence[Sequence[int]], fixed_length: int | None, first_sequence: int) -> Batch:
    """One batch, as long as its longest sequence or as `fixed_length`."""
    length = fixed_length or max(map(len, sequences))
    tokens_BL = np.full((len(sequences), length), PAD, np.int64)
    real_BL = np.zeros((len(sequences), length), bool)
    for row, sequence in enumerate(sequences):
        tokens_BL[row, : len(sequence)] = sequence
        real_BL[row, : len(sequence)] = True
    return Batch(domain, index, tokens_BL, real_BL, np.arange(first_sequence, first_sequence + len(sequences)))
