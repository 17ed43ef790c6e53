"""Batched products over padded buffers.

P physical experts, C rows of each, R = P x C, D width, F hidden width.
"""

import torch
from torch import Tensor

from moeprof.moe.experts import Activation, ExpertRows
from moeprof.store.resident import ExpertWeights


def bmm(inputs: ExpertRows, weights: ExpertWeights, activation: Activation) -> Tensor:
    """Every expert has the same C rows, needed or not; (R, D). ValueError where experts have rows of their own number."""
    if not isinstance(inputs.offsets, range):
        raise ValueError("kernel bmm needs equally many rows of every expert: use a padded dispatch or another kernel")
    num_experts, dim = weights.w1_EDF.shape[:2]
    rows_PCD = inputs.rows_RD.view(num_experts, -1, dim)
    hidden_PCF = activation(torch.baddbmm(weights.b1_EF[:, None], rows_PCD, weights.w1_EDF))
    return torch.baddbmm(weights.b2_ED[:, None], hidden_PCF, weights.w2_EFD).view(-1, dim)
