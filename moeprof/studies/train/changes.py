"""Changes that should degrade a trained model; the loss they cause shows how small a degradation can be detected.

T tokens, K choices, E experts.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from moeprof.moe.router import best
from moeprof.moe.routing import Routing
from moeprof.studies.train.heldout import cross_entropies
from moeprof.studies.train.learner import Learner
from moeprof.studies.train.lessons import Lesson

GROUP = 32
"""Weights of one expert's input dimension that share a scale."""

Rerouted = Callable[[Tensor, Routing], Routing]
"""Maps the softmax values (T, E) and the router's decisions to other decisions."""


def answers(learner: Learner, heldout: Mapping[str, Lesson]) -> dict[str, dict[str, float]]:
    """Held-out cross-entropy by change and domain; the model is restored afterwards."""
    found = {}
    for name, change in CHANGES.items():
        with change(learner):
            found[name] = cross_entropies(learner, heldout)
    return found


def first_only(gates_TE: Tensor, routing: Routing) -> Routing:
    """Only the best expert of each token."""
    return replace(routing, experts_TK=routing.experts_TK[:, :1], probs_TK=routing.probs_TK[:, :1])


def at_random(gates_TE: Tensor, routing: Routing) -> Routing:
    """The same number of different experts, chosen at random and weighted by their softmax values."""
    noise_TE = torch.rand(gates_TE.shape, generator=torch.Generator().manual_seed(0))
    experts_TK = best(noise_TE, routing.experts_TK.shape[1])
    return replace(routing, experts_TK=experts_TK, probs_TK=gates_TE.gather(1, experts_TK))


def among_half(gates_TE: Tensor, routing: Routing) -> Routing:
    """The best of the experts with even ids, as if the others were removed."""
    left_TE = gates_TE.clone()
    left_TE[:, 1::2] = -1.0
    experts_TK = best(left_TE, min(routing.experts_TK.shape[1], (gates_TE.shape[1] + 1) // 2))
    return replace(routing, experts_TK=experts_TK, probs_TK=gates_TE.gather(1, experts_TK))


@contextmanager
def rerouted(change: Rerouted, learner: Learner) -> Iterator[None]:
    """Applies `change` to the decisions of every router inside the block."""
    with learner.at_routers(lambda layer, logits_TE, routing: change(torch.softmax(logits_TE, dim=1), routing)):
        yield


@contextmanager
def coarse_experts(learner: Learner) -> Iterator[None]:
    """Rounds the experts' matrices to int4 inside the block."""
    matrices = learner.expert_matrices()
    exact = [matrix.detach().clone() for matrix in matrices]
    try:
        with torch.no_grad():
            for matrix in matrices:
                matrix.copy_(int4(matrix))
        yield
    finally:
        with torch.no_grad():
            for matrix, before in zip(matrices, exact, strict=True):
                matrix.copy_(before)


def int4(weights_EDF: Tensor, group: int = GROUP) -> Tensor:
    """The matrices rounded to symmetric 4-bit integers, with one scale per `group` inputs and output."""
    rounded = []
    for part in torch.split(weights_EDF, group, dim=1):
        scale = part.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(part.dtype).tiny) / 7
        rounded.append((part / scale).round().clamp(-8, 7) * scale)
    return torch.cat(rounded, dim=1)


Change = Callable[[Learner], AbstractContextManager[None]]

CHANGES: dict[str, Change] = {
    "top-1 instead of top-k": partial(rerouted, first_only),
    "random experts": partial(rerouted, at_random),
    "half of the experts removed": partial(rerouted, among_half),
    f"int4 experts in groups of {GROUP}": coarse_experts,
}
"""Changes by the names that the model card shows."""
