"""The simplest dropless MoE layer, a loop over experts: the reference in tests, and the layer that is trained."""

import torch
from torch import Tensor

from moeprof.moe.experts import FFN
from moeprof.moe.routing import Routing
from moeprof.records.ffn.form import Matrix
from moeprof.store.resident import ExpertWeights


def reference_layer(x_TD: Tensor, routing: Routing, weights: ExpertWeights, ffn: FFN, scale: float) -> Tensor:
    """Sum over a token's choices of weight x FFN of the chosen expert, (T, D); nothing is dropped, gradients flow."""
    experts_N = routing.queues().flatten()  # N = T x K; padding comes last
    counts = torch.bincount(experts_N, minlength=routing.num_experts)[: routing.num_experts].tolist()
    choice_R = torch.argsort(experts_N, stable=True)[: sum(counts)]
    token_R = choice_R // routing.experts_TK.shape[1]
    rows_by_expert = torch.split(x_TD.index_select(0, token_R), counts)
    outputs_RD = torch.cat([run_expert(*one, ffn) for one in zip(rows_by_expert, weights.unstacked(), strict=True)])
    weights_R1 = routing.weights().to(x_TD.dtype).flatten()[choice_R, None]
    return torch.zeros_like(x_TD).index_add(0, token_R, outputs_RD * weights_R1) * scale


def run_expert(rows_ND: Tensor, weights: ExpertWeights, ffn: FFN) -> Tensor:
    """Outputs (N, D) of one expert, whose weights have no first dimension."""

    def product(rows_NM: Tensor, matrix: Matrix) -> Tensor:
        bias = weights.get(matrix.bias)
        return rows_NM @ weights[matrix.name] if bias is None else torch.addmm(bias, rows_NM, weights[matrix.name])

    return ffn(rows_ND, product)
