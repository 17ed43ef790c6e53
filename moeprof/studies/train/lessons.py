"""Lessons, the batches of training: padded tokens and the next token of each.

B sequences, L positions, M source positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moeprof.workloads.tokenizers import PAD

IGNORED = -100
"""Target of a position without a next token, as in torch's cross_entropy."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Sequences of one batch, which are translations if there is a source."""

    tokens_BL: Tensor
    targets_BL: Tensor
    source_BM: Tensor | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens that the model reads, without padding."""
        source = 0 if self.source_BM is None else int(self.source_BM.ne(PAD).sum())
        return int(self.tokens_BL.ne(PAD).sum()) + source


def lesson(targets: Sequence[Sequence[int]], sources: Sequence[Sequence[int]] | None = None) -> Lesson:
    """A lesson of whole sequences: all tokens but the last are read, all but the first are predicted."""
    tokens_BL = padded([sequence[:-1] for sequence in targets], PAD)
    targets_BL = padded([sequence[1:] for sequence in targets], IGNORED)
    return Lesson(tokens_BL, targets_BL, None if sources is None else padded(sources, PAD))


def padded(sequences: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Sequences (B, L), padded on the right."""
    rows_BL = np.full((len(sequences), max(map(len, sequences))), filler, np.int64)
    for row, sequence in zip(rows_BL, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(rows_BL)
