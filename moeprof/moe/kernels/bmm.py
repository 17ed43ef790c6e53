"""Batched products over padded buffers.

P physical experts, C rows of each, R = P x C, D width, M inputs and N outputs of a matrix.
"""

import torch
from torch import Tensor

from moeprof.moe.experts import FFN, ExpertRows, Product
from moeprof.records.ffn.form import Matrix
from moeprof.store.resident import ExpertWeights


def bmm(inputs: ExpertRows, weights: ExpertWeights, ffn: FFN) -> Tensor:
    """Outputs (R, D) of padded buffers, empty rows included. ValueError if experts have different numbers of rows."""
    if not isinstance(inputs.offsets, range):
        raise ValueError("kernel bmm needs equally many rows of every expert: use a padded dispatch or another kernel")
    dim = inputs.rows_RD.shape[1]
    rows_PCD = inputs.rows_RD.view(weights.num_experts, -1, dim)
    return ffn(rows_PCD, batched_product(weights)).view(-1, dim)


def batched_product(weights: ExpertWeights) -> Product:
    """The product of the rows of each expert (P, C, inputs) and its matrix, (P, C, outputs)."""

    def product(rows_PCM: Tensor, matrix: Matrix) -> Tensor:
        bias_PN = weights.get(matrix.bias)
        if bias_PN is None:
            return torch.bmm(rows_PCM, weights[matrix.name])
        return torch.baddbmm(bias_PN[:, None], rows_PCM, weights[matrix.name])

    return product
