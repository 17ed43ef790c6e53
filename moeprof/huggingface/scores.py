"""The router's own distribution over its classes, for `gate_entropy`.

Upstream records logits, probabilities or other scores under one name, `router_logits`. Which of them they are is found by trying what
reproduces the weights that the experts received; a weight itself is no probability.

T: rows. K: experts per row. C: classes of the router: the experts, and what else it can choose.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from moeprof.huggingface.capture import Call

ScoreFunction = Callable[[Tensor], Tensor]

KINDS: dict[str, ScoreFunction] = {
    "softmax": lambda recorded_TC: recorded_TC.softmax(dim=1),
    "sigmoid": torch.sigmoid,
    "sqrtsoftplus": lambda recorded_TC: nn.functional.softplus(recorded_TC).sqrt(),
    "scores": lambda recorded_TC: recorded_TC,
}
PROBABILITIES = "probabilities"
SUM_TOLERANCE = 1e-3
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""How much a weight may differ from its score, both divided by their sum over K, if the experts receive weights of this type."""


class RouterScores(NamedTuple):
    """The distribution, or why there is none."""

    gates_TC: Tensor | None
    """float32, rows sum to 1."""
    kind: str
    reason: str = ""
    """Why there is no distribution."""


def router_scores(recorded_TC: Tensor | None, experts_TK: Tensor, weights_TK: Tensor) -> RouterScores:
    """The distribution of the rows of a call: probabilities as they are, the softmax of logits, other scores divided by their sum.

    `weights_TK` in the type in which the experts received them, in any order of the K.
    """
    if recorded_TC is None:
        return RouterScores(None, "", "the layer has no router whose scores transformers records")
    recorded_TC = recorded_TC.float()
    if recorded_TC.numel() == 0:
        return RouterScores(None, "", "there was no row")
    if is_distribution(recorded_TC):
        return RouterScores(recorded_TC, PROBABILITIES)
    kind = score_kind(recorded_TC, experts_TK, weights_TK)
    if kind is None:
        return RouterScores(None, "", "no known function of the router's scores gives the weights that the experts received")
    scores_TC = KINDS[kind](recorded_TC)
    return RouterScores(scores_TC / scores_TC.sum(dim=1, keepdim=True), kind)


def scores_of(call: Call) -> RouterScores:
    """The distribution of the router in a call that was captured with its scores."""
    return router_scores(call.recorded_TC, call.received.experts_TK, call.received.weights_TK)


def is_distribution(recorded_TC: Tensor) -> bool:
    """Whether rows are not negative and sum to 1."""
    return bool((recorded_TC >= 0).all() and ((recorded_TC.sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all())


def score_kind(recorded_TC: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> str | None:
    """The function that gives the weights best, if it gives them, and no other gives them as well."""
    errors = {}
    for kind, function in KINDS.items():
        chosen_TK = function(recorded_TC).gather(1, experts_TK.clamp(max=recorded_TC.shape[1] - 1))
        errors[kind] = largest_difference(chosen_TK, weights_TK.float())
    best, second = sorted(errors, key=lambda kind: errors[kind])[:2]
    is_clear = errors[best] <= TOLERANCE[weights_TK.dtype] and errors[second] > 2 * errors[best]
    return best if is_clear else None


def largest_difference(chosen_TK: Tensor, weights_TK: Tensor) -> float:
    """Between weights and scores up to a factor: one per row if K > 1, because weights may be normalised, otherwise one for all rows."""
    dim = 1 if chosen_TK.shape[1] > 1 else 0
    difference = chosen_TK / chosen_TK.sum(dim=dim, keepdim=True) - weights_TK / weights_TK.sum(dim=dim, keepdim=True)
    return float(difference.abs().max().nan_to_num(nan=torch.inf))
