"""Rows that are found again by their index: what Tutel's scatter and dynamic gating have in common.

T tokens, K choices, R expert rows, D width.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from moeprof.moe.experts import ExpertRows


@dataclass(frozen=True, eq=False)
class IndexedDispatched:
    """What left for the experts, and which row answers which choice."""

    rows: ExpertRows
    dropped_TK: Tensor | None
    """Choices that found their expert full; None where nothing can be dropped."""
    row_TK: Tensor
    """Row of every choice; any row at all where its weight is 0."""
    weights_TK: Tensor
    """Combine weights in the dtype of the tokens; 0 for padding and for what was dropped."""

    def combine(self, outputs_RD: Tensor, scale: float) -> Tensor:
        """Weighted sum of each token's rows, (T, D): one gather without copies in between, the same sum on every run."""
        if not len(outputs_RD):  # nothing but padding
            return outputs_RD.new_zeros(len(self.row_TK), outputs_RD.shape[1])
        return F.embedding_bag(self.row_TK, outputs_RD, mode="sum", per_sample_weights=self.weights_TK * scale)
