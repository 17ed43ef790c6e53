"""JetMoE: choices sorted by expert; a layer has experts in its MLP, and others in its attention."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import Adapter, CallChoices, ExpertNumbers


class JetMoe(Adapter):
    """A block with a router and two stacks of matrices, `input_linear` and `output_linear`."""

    after = True

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        stacks = [getattr(getattr(module, name, None), "weight", None) for name in ("input_linear", "output_linear")]
        has_stacks = all(isinstance(stack, Tensor) and stack.dim() == 3 for stack in stacks)
        return has_stacks and hasattr(getattr(module, "router", None), "top_k")

    def hooked(self, module: nn.Module, block: nn.Module) -> nn.Module:
        return module.get_submodule("router")

    def computing(self, module: nn.Module) -> list[nn.Module]:
        return [module.get_submodule(name) for name in ("input_linear", "output_linear")]

    def size(self, module: nn.Module, block: nn.Module) -> ExpertNumbers:
        return ExpertNumbers(len(module.get_parameter("input_linear.weight")))

    def expert_bytes(self, module: nn.Module, size: ExpertNumbers) -> int:
        return sum(stack.get_parameter("weight").nbytes for stack in self.computing(module)) // size.experts

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> tuple[Tensor, ...]:
        """Where each choice comes from, its weight, and how many each expert has."""
        order_N, _, weights_N, counts_E, _ = output
        return order_N, weights_N, torch.tensor(counts_E)

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        assert top_k is not None
        order_N, weights_N, counts_E = tensors
        sorted_N = torch.arange(size.experts).repeat_interleave(counts_E).to(order_N.device)
        experts_N, unsorted_N = torch.empty_like(sorted_N), torch.empty_like(weights_N)
        experts_N[order_N], unsorted_N[order_N] = sorted_N, weights_N
        experts_TK = experts_N.view(-1, top_k)
        return CallChoices(experts_TK, unsorted_N.view(-1, top_k), torch.zeros_like(experts_TK, dtype=torch.int8))
