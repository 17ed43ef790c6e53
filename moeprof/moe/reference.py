"""The plainest dropless MoE layer: a loop over experts. Tests hold the others against it; training runs on it."""

import torch
from torch import Tensor

from moeprof.moe.experts import Activation
from moeprof.moe.routing import Routing
from moeprof.store.resident import ExpertWeights


def reference_layer(x_TD: Tensor, routing: Routing, weights: ExpertWeights, activation: Activation, scale: float) -> Tensor:
    """Sum over a token's choices of weight x FFN of the chosen expert, (T, D); nothing is dropped, gradients flow."""
    experts_N = routing.queues().flatten()  # N = T x K; padding comes last
    counts = torch.bincount(experts_N, minlength=routing.num_experts)[: routing.num_experts].tolist()
    choice_R = torch.argsort(experts_N, stable=True)[: sum(counts)]
    token_R = choice_R // routing.experts_TK.shape[1]
    rows_by_expert = torch.split(x_TD.index_select(0, token_R), counts)
    outputs_RD = torch.cat(
        [
            torch.addmm(b2, activation(torch.addmm(b1, rows, w1)), w2)
            for rows, w1, b1, w2, b2 in zip(rows_by_expert, *weights, strict=True)
        ]
    )
    weights_R1 = routing.weights().to(x_TD.dtype).flatten()[choice_R, None]
    return torch.zeros_like(x_TD).index_add(0, token_R, outputs_RD * weights_R1) * scale
