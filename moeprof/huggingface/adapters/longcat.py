"""LongCat-Flash: ids above those of the experts are identity experts, which return the hidden states."""

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import CallChoices, ExpertNumbers, Kept
from moeprof.huggingface.adapters.three_arguments import ThreeArguments


class Longcat(ThreeArguments):
    """Experts with three arguments that say how many of them are identity experts."""

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        return (
            super().recognises(module, block) and hasattr(module, "zero_expert_num") and hasattr(module, "num_routed_experts")
        )

    def size(self, module: nn.Module, block: nn.Module) -> ExpertNumbers:
        return ExpertNumbers(int(module.num_routed_experts), int(module.zero_expert_num))  # type: ignore[arg-type]

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        experts_TK, weights_TK, kept_TK = super().choices(tensors, ExpertNumbers(size.experts + size.zero), top_k)
        zero_TK = (experts_TK >= size.experts) & (experts_TK < size.experts + size.zero)
        return CallChoices(experts_TK, weights_TK, torch.where(zero_TK, int(Kept.ZERO_COMPUTE), kept_TK))
