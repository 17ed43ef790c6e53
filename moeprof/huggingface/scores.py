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
    "scores": lambda recorded_TC: recorded_TC.where(recorded_TC >= 0, torch.nan),
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


def scores_of(call: Call, kind: str = "") -> RouterScores:
    """`router_scores` of a call that was captured with its scores."""
    return router_scores(call.recorded_TC, call.received.experts_TK, call.received.weights_TK, kind)


def router_scores(recorded_TC: Tensor | None, experts_TK: Tensor, weights_TK: Tensor, kind: str = "") -> RouterScores:
    """The distribution of the rows of a call: probabilities as they are, the softmax of logits, other scores divided by their sum.

    `weights_TK` are those that the experts received, in their own type. `kind` is that of an earlier call of the layer, if one was found.
    """
    if recorded_TC is None:
        return RouterScores(None, "", "the layer has no router whose scores transformers records")
    if not len(recorded_TC):
        return RouterScores(None, "", "the call had no rows")
    recorded_TC = recorded_TC.float()
    if kind == PROBABILITIES or (not kind and is_distribution(recorded_TC)):
        return RouterScores(recorded_TC, PROBABILITIES)
    kinds = [kind] if kind else score_kinds(recorded_TC, experts_TK, weights_TK)
    if len(kinds) != 1:
        which = (
            f"several functions ({', '.join(kinds)}) of the router's scores give"
            if kinds
            else "no known function of the router's scores gives"
        )
        return RouterScores(None, "", f"{which} the weights that the experts received")
    scores_TC = KINDS[kinds[0]](recorded_TC)
    return RouterScores(scores_TC / scores_TC.sum(dim=1, keepdim=True), kinds[0])


def is_distribution(recorded_TC: Tensor) -> bool:
    """Whether rows are not negative and sum to 1."""
    return bool((recorded_TC >= 0).all() and ((recorded_TC.sum(dim=1) - 1).abs() <= SUM_TOLERANCE).all())


def score_kinds(recorded_TC: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> list[str]:
    """The functions that give the weights, within the precision of their type: those that are not much worse than the best.

    A function that is undefined for some class is none of them, though the weights of one row may agree with it.
    """
    errors = {}
    for kind, function in KINDS.items():
        scores_TC = function(recorded_TC)
        if not bool(scores_TC.isnan().any()):
            chosen_TK = scores_TC.gather(1, experts_TK.clamp(max=recorded_TC.shape[1] - 1))
            errors[kind] = largest_difference(chosen_TK, weights_TK.float())
    best = min(errors.values(), default=torch.inf)
    return [kind for kind, error in errors.items() if error <= min(TOLERANCE[weights_TK.dtype], 2 * best)]


def largest_difference(chosen_TK: Tensor, weights_TK: Tensor) -> float:
    """Between weights and scores up to a factor: one per row if K > 1, because weights may be normalised, otherwise one for all rows."""
    dim = 1 if chosen_TK.shape[1] > 1 else 0
    difference = chosen_TK / chosen_TK.sum(dim=dim, keepdim=True) - weights_TK / weights_TK.sum(dim=dim, keepdim=True)
    return float(difference.abs().max().nan_to_num(nan=torch.inf))
