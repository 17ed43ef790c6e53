"""Experts that are called with hidden states, the ids of the chosen experts [T, K] and their weights [T, K]."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import Adapter, CallChoices, ExpertNumbers, Kept, parameter_names
from moeprof.huggingface.fused import FusedExperts
from moeprof.huggingface.stack import ExpertStack

NAMES = ["top_k_index", "top_k_weights"]


class ThreeArguments(Adapter):
    """Found by the names of the arguments, as dbrx and step3p7 have them."""

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        return parameter_names(module)[1:] == NAMES

    def stack(self, module: nn.Module, size: ExpertNumbers) -> ExpertStack:
        return FusedExperts(module, size.experts)

    def expert_bytes(self, module: nn.Module, size: ExpertNumbers) -> int:
        """Models that keep the matrices of all experts below each other (dbrx) may keep them in a module of their own."""
        own = super().expert_bytes(module, size)
        return own or sum(tensor.nbytes for tensor in module.parameters()) // size.experts

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> tuple[Tensor, ...]:
        _, experts_TK, weights_TK = args if len(args) == 3 else (*args, *kwargs.values())
        return experts_TK, weights_TK

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        """Ids that no expert has are those of other ranks."""
        experts_TK, weights_TK = (tensor.reshape(-1, tensor.shape[-1]) for tensor in tensors)
        kept_TK = torch.where(experts_TK < size.experts, Kept.ROUTED, Kept.SENTINEL)
        return CallChoices(experts_TK.long(), weights_TK, kept_TK.to(torch.int8))
