"""The plainest dropless MoE layer: a loop over experts. Tests hold the others against it; training runs on it."""

import torch
from torch import Tensor

from moeprof.moe.experts import Activation
from moeprof.moe.routing import Routing
from moeprof.store.resident import ExpertWeights


def reference_layer(x_TD: Tensor, routing: Routing, weights: ExpertWeights, activation: Activation, scale: float) -> Tensor:
    """Sum over a token's choices of weight x FFN of the chosen expert, (T, D); nothing is dropped, gradients flow."""
    weights_TK = routing.weights().to(x_TD.dtype)
    kept_TK = routing.kept()
    y_TD = torch.zeros_like(x_TD)
    for expert, (w1, b1, w2, b2) in enumerate(zip(*weights, strict=True)):
        token, choice = torch.nonzero((routing.experts_TK == expert) & kept_TK, as_tuple=True)
        output = activation(x_TD[token] @ w1 + b1) @ w2 + b2
        y_TD = y_TD.index_add(0, token, output * weights_TK[token, choice, None])
    return y_TD * scale
