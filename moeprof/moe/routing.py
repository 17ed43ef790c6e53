"""The decisions of a router, their weights, and the queue before each expert.

T tokens (padding included), K choices per token, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Routing:
    """Decisions for T tokens; the choices of one token are distinct."""

    experts_TK: Tensor
    """Expert of each choice, int64, best first."""
    probs_TK: Tensor
    """Softmax value of each choice, float32."""
    real_T: Tensor | None
    """Which rows are real tokens; None if all are. Padding reaches no expert and weighs nothing."""
    num_experts: int
    known_real: int | None = None
    """Number of real tokens, if the host knows it."""
    normalized_before: bool = False
    """Whether weights are normalised before choices are dropped; a token that loses one then has weights below 1 in total."""
    final: bool = False
    """Whether `probs_TK` are the weights themselves, which a router has normalised and scaled in its own way."""

    @property
    def num_real(self) -> int:
        """Number of real tokens; counted if it is not known, and then the host waits for the device."""
        if self.real_T is None:
            return len(self.experts_TK)
        return int(self.real_T.sum()) if self.known_real is None else self.known_real

    def queues(self) -> Tensor:
        """The queue that each choice joins, (T, K): its expert; choices of padding join queue E, behind all experts."""
        return self.experts_TK if self.real_T is None else self.experts_TK.masked_fill(~self.real_T[:, None], self.num_experts)

    def kept(self, dropped_TK: Tensor | None = None) -> Tensor:
        """Which choices count, (T, K) bool: those of real tokens that are not dropped."""
        kept_TK = torch.ones_like(self.experts_TK, dtype=torch.bool) if dropped_TK is None else ~dropped_TK
        return kept_TK if self.real_T is None else kept_TK & self.real_T[:, None]

    def weights(self, dropped_TK: Tensor | None = None) -> Tensor:
        """Combine weights (T, K), float32: softmax values normalised over all choices, or over those that count (fairseq Top2Gate)."""
        surviving_TK = self.probs_TK * self.kept(dropped_TK)
        if self.final:
            return surviving_TK
        counted_TK = self.probs_TK if self.normalized_before else surviving_TK
        return surviving_TK / counted_TK.sum(dim=1, keepdim=True).clamp(min=torch.finfo(surviving_TK.dtype).eps)


def positions_in_expert(routing: Routing) -> Tensor:
    """Position (T, K) of every choice in the queue of its expert, from 0.

    First choices of all tokens go before any second choice, tokens in order, as in fairseq. Three tokens with two choices each:
        experts    [[0, 1], [1, 0], [1, 2]]
        queues     expert 0: token 0, then the second choice of token 1; expert 1: tokens 1 and 2, then token 0; expert 2: token 2
        positions  [[0, 2], [0, 1], [1, 0]]
    """
    num_tokens, top_k = routing.experts_TK.shape
    queue_N = routing.queues().t().reshape(-1)  # N = K x T, choice by choice
    sorted_N, order_N = torch.sort(queue_N, stable=True)
    index_N = torch.arange(len(queue_N), device=queue_N.device)
    first_N = torch.searchsorted(sorted_N, sorted_N)  # index at which the run of equal experts begins
    positions_N = torch.empty_like(queue_N).scatter_(0, order_N, index_N - first_N)
    return positions_N.view(top_k, num_tokens).t()
