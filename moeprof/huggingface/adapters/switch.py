"""Switch Transformers: one expert per token, and each takes as many tokens of a sequence as its capacity allows."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import Adapter, CallChoices, ExpertNumbers, Kept, parameter_names
from moeprof.huggingface.separate import SeparateExperts
from moeprof.huggingface.stack import Received

NAMES = ["hidden_states", "selected_experts", "routing_weights"]


class Switch(Adapter):
    """A dictionary of experts beside a router that knows their capacity."""

    after = True
    top_k = 1

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        has_capacity = hasattr(getattr(block, "router", None), "expert_capacity")
        return has_capacity and isinstance(module, nn.ModuleDict) and parameter_names(module) == NAMES

    def hooked(self, module: nn.Module, block: nn.Module) -> nn.Module:
        return block.get_submodule("router")

    def size(self, module: nn.Module, block: nn.Module) -> ExpertNumbers:
        assert isinstance(module, nn.ModuleDict)
        return ExpertNumbers(len(module))

    def stack(self, module: nn.Module, size: ExpertNumbers) -> SeparateExperts:
        return SwitchExperts(module, size.experts)

    def expert_bytes(self, module: nn.Module, size: ExpertNumbers) -> int:
        return sum(parameter.nbytes for parameter in module.parameters()) // size.experts

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> tuple[Tensor, ...]:
        mask_BSE, weights_BS1, logits_BSE = output
        return mask_BSE, weights_BS1, logits_BSE

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        """The mask of a dropped token is empty; the router had chosen the expert with the largest probability."""
        mask_TE, weights_T1, logits_TE = (tensor.flatten(0, 1) for tensor in tensors)
        probs_TE = logits_TE.softmax(dim=1).to(weights_T1.dtype)
        routed_T1 = mask_TE.sum(dim=1, keepdim=True) > 0
        experts_T1 = torch.where(routed_T1, mask_TE.argmax(dim=1, keepdim=True), probs_TE.argmax(dim=1, keepdim=True))
        kept_T1 = torch.where(routed_T1, int(Kept.ROUTED), int(Kept.DROPPED)).to(torch.int8)
        return CallChoices(experts_T1, weights_T1, kept_T1)


class SwitchExperts(SeparateExperts):
    """Experts that are called with hidden states, a mask (T, K, E) of the chosen experts and their weights."""

    def received(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Received:
        """The mask of a token whose expert was full is empty."""
        x_TD, mask_TKE, weights_TK = *args, *kwargs.values()
        return Received(x_TD, mask_TKE.argmax(dim=2), weights_TK, (mask_TKE > 0).any(dim=2).any(dim=1))

    def arguments(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, num_experts: int) -> tuple[Tensor, ...]:
        mask_TKE = F.one_hot(experts_TK.clamp(max=num_experts), num_experts + 1)[..., :num_experts]
        return x_TD, mask_TKE, weights_TK
