"""Rows that `combine` finds by their index: shared by Tutel's scatter and dynamic gating.

T tokens, K choices, R expert rows, D width.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from moeprof.moe.experts import ExpertRows


@dataclass(frozen=True, eq=False)
class IndexedDispatched:
    """Rows for the experts, and the row that answers each choice."""

    rows: ExpertRows
    dropped_TK: Tensor | None
    """Choices over the capacity of their expert; None if the dispatch drops nothing."""
    row_TK: Tensor
    """Row of every choice; an arbitrary row if its weight is 0."""
    weights_TK: Tensor
    """Combine weights in the dtype of the tokens; 0 for padding and for dropped choices."""

    def combine(self, outputs_RD: Tensor, scale: float) -> Tensor:
        """Weighted sum of each token's rows, (T, D): one gather without intermediate copies, deterministic."""
        if not len(outputs_RD):  # only padding
            return outputs_RD.new_zeros(len(self.row_TK), outputs_RD.shape[1])
        return F.embedding_bag(self.row_TK, outputs_RD, mode="sum", per_sample_weights=self.weights_TK * scale)
