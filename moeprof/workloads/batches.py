"""Padded batches of token sequences.

B sequences, L positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice, zip_longest

import numpy as np
import numpy.typing as npt

from moeprof.workloads.tokenizers import PAD


@dataclass(frozen=True, eq=False)
class Batch:
    """Sequences padded on the right."""

    domain: str
    index: int
    """Batches of the workload before this one."""
    tokens_BL: npt.NDArray[np.int64]
    real_BL: npt.NDArray[np.bool_]
    sequence_B: npt.NDArray[np.int64]
    """Number of each sequence within the workload."""


def make_batches(
    domain: str,
    sequences: Sequence[Sequence[int]],
    batch_size: int,
    *,
    max_batches: int,
    fixed_length: int | None,
    first_batch: int,
) -> list[Batch]:
    """Full batches in order; a text too short for one full batch gives one smaller batch."""
    whole = len(sequences) // batch_size * batch_size
    kept = sequences[: whole or None][: max_batches * batch_size]
    groups = [kept[start : start + batch_size] for start in range(0, len(kept), batch_size)]
    return [
        pad(domain, first_batch + index, group, fixed_length, (first_batch + index) * batch_size)
        for index, group in enumerate(groups)
    ]


def mixed(batches: Sequence[Batch], size: int) -> Batch:
    """`size` sequences, one of every domain in turn; from the top again where all have been taken."""
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
