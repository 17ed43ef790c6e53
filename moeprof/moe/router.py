"""Top-k gating with the semantics of fairseq: softmax in float32, one argmax after another, ties to the lowest id.

T tokens, D width, E experts, K choices.
"""

from typing import Protocol

import torch
from torch import Tensor, nn

from moeprof.instrument.probe import active
from moeprof.instrument.step import Step
from moeprof.moe.routing import Routing


class ForcedDecisions(Protocol):
    """A source of decisions that replaces the router's own."""

    def decide(self, layer: str, step: Step, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Experts (T, K) int64, and their softmax values (T, K), or None to use those of the router."""
        ...


class Router(nn.Module):
    """Scores every expert for every token and keeps the best K; the weight is float32 for every dtype of the model."""

    def __init__(self, name: str, dim: int, num_experts: int, top_k: int, *, normalize_before_dropping: bool = False) -> None:
        super().__init__()
        self.name, self.top_k, self.normalize_before_dropping = name, top_k, normalize_before_dropping
        self.weight = nn.Parameter(torch.empty(num_experts, dim, dtype=torch.float32))
        self.forced: ForcedDecisions | None = None

    def gates(self, x_TD: Tensor) -> Tensor:
        """Softmax over experts, (T, E) float32."""
        return torch.softmax(x_TD.float() @ self.weight.t(), dim=1)

    def forward(self, x_TD: Tensor, step: Step) -> Routing:
        gates_TE = self.gates(x_TD)
        if (probe := active()) is not None:
            probe.scored(self.name, step, gates_TE)
        if self.forced is None:
            experts_TK = best(gates_TE, self.top_k)
            probs_TK = gates_TE.gather(1, experts_TK)
        else:
            experts_TK, given_TK = self.forced.decide(self.name, step, x_TD.device)
            probs_TK = gates_TE.gather(1, experts_TK) if given_TK is None else given_TK
        return self.routing(experts_TK, probs_TK, step)

    def routing(self, experts_TK: Tensor, probs_TK: Tensor, step: Step) -> Routing:
        """Decisions (T, K) with their softmax values, weighed as those of this router."""
        num_experts = self.weight.shape[0]
        return Routing(experts_TK, probs_TK, step.real_T, num_experts, step.num_real, self.normalize_before_dropping)


ROUTERS: dict[str, type[Router]] = {"softmax": Router}
"""Kinds of router by the name that a family gives."""


def best(gates_TE: Tensor, top_k: int) -> Tensor:
    """The K largest of every row, best first, (T, K); ties go to the lowest id, which `topk` does not guarantee."""
    remaining_TE = gates_TE.clone() if top_k > 1 else gates_TE
    choices = []
    for _ in range(top_k):
        choice_T = remaining_TE.argmax(dim=1, keepdim=True)
        choices.append(choice_T)
        if len(choices) < top_k:
            remaining_TE.scatter_(1, choice_T, -1.0)
    return torch.cat(choices, dim=1)
