"""What a router decides, and what dropping makes of it.

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
    """Which rows are no padding; None where all are. Padding takes part in nothing."""
    num_experts: int
    known_real: int | None = None
    """How many rows are no padding, where the host knows it."""

    @property
    def num_real(self) -> int:
        """How many rows are no padding; counted where nobody knows, and then a host waits for its device."""
        if self.real_T is None:
            return len(self.experts_TK)
        return int(self.real_T.sum()) if self.known_real is None else self.known_real

    def queues(self) -> Tensor:
        """The expert that each choice waits for, (T, K); padding waits behind all experts, in a queue of its own."""
        return self.experts_TK if self.real_T is None else self.experts_TK.masked_fill(~self.real_T[:, None], self.num_experts)

    def kept(self, dropped_TK: Tensor | None = None) -> Tensor:
        """Which choices count, (T, K) bool: not of padding, and not dropped."""
        kept_TK = torch.ones_like(self.experts_TK, dtype=torch.bool) if dropped_TK is None else ~dropped_TK
        return kept_TK if self.real_T is None else kept_TK & self.real_T[:, None]

    def weights(self, dropped_TK: Tensor | None = None) -> Tensor:
        """Combine weights (T, K), float32: softmax values renormalised over the choices that survive (fairseq Top2Gate)."""
        surviving_TK = self.probs_TK * self.kept(dropped_TK)
        eps = torch.finfo(surviving_TK.dtype).eps
        return surviving_TK / surviving_TK.sum(dim=1, keepdim=True).clamp(min=eps)


def positions_in_expert(routing: Routing) -> Tensor:
    """Place (T, K) of every choice in its expert's queue, from 0.

    First choices of all tokens go before any second choice, tokens in order, as in fairseq; padding queues behind everybody.
    """
    num_tokens, top_k = routing.experts_TK.shape
    queue_N = routing.queues().t().reshape(-1)  # N = K x T, slot by slot
    sorted_N, order_N = torch.sort(queue_N, stable=True)
    ranks_N = torch.arange(len(queue_N), device=queue_N.device)
    first_N = torch.searchsorted(sorted_N, sorted_N)  # where the run of equal experts begins
    places_N = torch.empty_like(queue_N).scatter_(0, order_N, ranks_N - first_N)
    return places_N.view(top_k, num_tokens).t()
