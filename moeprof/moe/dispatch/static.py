"""Static gating, the paper's baseline: products with a mask of S x E x c give padded buffers of capacity slots.

T = S tokens, E experts, C = c slots per expert, R = E x c rows, K choices, D width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moeprof.moe.exchange import LOCAL, Exchange
from moeprof.moe.experts import ExpertRows
from moeprof.moe.routing import Routing, positions_in_expert
from moeprof.records.recipe.gating import capacity


@dataclass(frozen=True, eq=False)
class MaskedDispatched:
    """Rows for the experts, and the weights that combine their outputs."""

    rows: ExpertRows
    dropped_TK: Tensor
    """Choices over the capacity of their expert."""
    combine_weights_TR: Tensor

    def combine(self, outputs_RD: Tensor, scale: float) -> Tensor:
        """Einsum combine: weights (T, R) @ outputs (R, D), times `scale`."""
        return (self.combine_weights_TR @ outputs_RD).mul_(scale)


def dispatch(x_TD: Tensor, routing: Routing, capacity_fraction: float, _exchange: Exchange = LOCAL) -> MaskedDispatched:
    """Einsum dispatch (fairseq MOELayer): mask (T, E, C) in the dtype of x, then mask^T @ x. S is the same on every rank."""
    num_tokens, num_experts = x_TD.shape[0], routing.num_experts
    slots = capacity(capacity_fraction, num_tokens)
    position_TK = positions_in_expert(routing)
    dropped_TK = (position_TK >= slots) & routing.kept()
    # A choice that does not count writes a zero into a cell of its own token: no data-dependent shapes, no conflicts.
    cell_TK = routing.experts_TK * slots + position_TK.clamp(max=slots - 1)
    mask_TR = scattered(cell_TK, routing.kept(dropped_TK).to(x_TD.dtype), num_experts * slots)
    weights_TR = scattered(cell_TK, routing.weights(dropped_TK).to(x_TD.dtype), num_experts * slots)
    rows = ExpertRows(mask_TR.t() @ x_TD, range(0, (num_experts + 1) * slots, slots))
    return MaskedDispatched(rows, dropped_TK, weights_TR)


def scattered(cell_TK: Tensor, values_TK: Tensor, num_rows: int) -> Tensor:
    """Zeros (T, R), with the values of each token's choices in its row."""
    return torch.zeros(len(cell_TK), num_rows, dtype=values_TK.dtype, device=cell_TK.device).scatter_(1, cell_TK, values_TK)
