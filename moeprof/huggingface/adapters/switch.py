"""Switch Transformers: one expert per token, and each takes as many tokens of a sequence as its capacity allows."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import Adapter, CallChoices, ExpertNumbers, Kept, parameter_names

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
