"""Zaya: the router has one class more than there are experts; choosing it skips the experts.

The router writes such a choice as expert 0 with weight 0.
"""

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import CallChoices, ExpertNumbers, Kept, number_of_experts
from moeprof.huggingface.adapters.decorated import Decorated


class Zaya(Decorated):
    """Decorated experts beside a router with a class for skipping."""

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        classes = getattr(getattr(block, "gate", None), "num_router_classes", None)
        return super().recognises(module, block) and classes == number_of_experts(module) + 1

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        experts_TK, weights_TK, kept_TK = super().choices(tensors, size, top_k)
        skipped_TK = (experts_TK == 0) & (weights_TK == 0)
        return CallChoices(experts_TK, weights_TK, torch.where(skipped_TK, int(Kept.SKIPPED), kept_TK))
