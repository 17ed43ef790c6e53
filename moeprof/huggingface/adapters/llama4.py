"""Llama 4: every expert computes every token; the router's scores [T, E] are 0 where an expert was not chosen."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from moeprof.huggingface.adapters.adapter import Adapter, CallChoices, ExpertNumbers, parameter_names


class Llama4(Adapter):
    """Experts that take hidden states only, beside a router that is one linear layer and knows K."""

    after = True

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        router = getattr(block, "router", None)
        is_router = isinstance(router, nn.Linear) and hasattr(router, "top_k")
        return (
            is_router
            and hasattr(module, "num_experts")
            and parameter_names(module) == ["hidden_states"]
            and module is not router
        )

    def hooked(self, module: nn.Module, block: nn.Module) -> nn.Module:
        return block.get_submodule("router")

    def computed_rows(self, num_rows: int, num_routed: int, size: ExpertNumbers) -> int:
        """All experts compute all rows, T x E."""
        return num_rows * size.experts

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> tuple[Tensor, ...]:
        return (output[0],)

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        assert top_k is not None
        weights_TK, experts_TK = tensors[0].topk(top_k, dim=1)
        return CallChoices(experts_TK, weights_TK, torch.zeros_like(experts_TK, dtype=torch.int8))
