"""Experts in one module, each of whose tensors has a part for every expert: called with hidden states, ids and weights.

T tokens, K choices, E experts, D width.
"""

from collections.abc import Mapping
from copy import copy
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from moeprof.huggingface.our_kernels import ffn_of, for_kernels, tensor_names
from moeprof.huggingface.stack import ExpertStack, Received, TensorPlace
from moeprof.moe.experts import FFN
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights


class FusedExperts(ExpertStack):
    """The module's own parameters are the stack: those with E as their first dimension."""

    def __init__(self, module: nn.Module, num_experts: int) -> None:
        super().__init__(module, num_experts)
        own = module.named_parameters(recurse=False)
        self.names = self.parameter_names = tuple(name for name, whole in own if whole.dim() and len(whole) == num_experts)

    @property
    def weights(self) -> ExpertWeights:
        return ExpertWeights((name, getattr(self.module, name)) for name in self.names)

    def place(self, name: str, expert: int) -> TensorPlace:
        return TensorPlace(name, expert)

    def refusal(self) -> str:
        if not self.names:
            return f"{self.kind} has no tensor with one part for each of its {self.num_experts} experts"
        return f"{self.kind} has only the experts of one rank" if getattr(self.module, "_is_expert_parallel", False) else ""

    def ours_refusal(self) -> str:
        if not (hasattr(self.module, "has_gate") and hasattr(self.module, "is_transposed")):
            return (
                f"{self.kind} does not say how its matrices are stored, because transformers' use_experts_implementation is not "
                "applied to it"
            )
        if unknown := set(self.names) ^ set(tensor_names(self.module).values()):
            return f"{self.kind} has experts of other tensors than our kernels know: {', '.join(sorted(unknown))}"
        return "" if self.weights.floating else f"{self.kind} has quantised experts"

    def received(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Received:
        """Whatever the class calls its arguments."""
        return Received(*args, *kwargs.values())

    def with_weights(self, weights: ExpertWeights) -> Self:
        """Upstream gives the ids of experts on other ranks like sentinels: they are computed by no one and weigh nothing."""
        module = copy(self.module)
        module._parameters = {name: one for name, one in self.module._parameters.items() if name not in weights}
        vars(module).update(weights, num_experts=weights.num_experts, _is_expert_parallel=True)
        twin = copy(self)
        twin.module = module
        return twin

    def computed(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """The class asks the model's backend."""
        return cast("Tensor", cast("Any", type(self.module)).forward(self.module, x_TD, experts_TK, weights_TK))

    def takes_sentinels(self) -> bool:
        """Found out with one expert of zeros."""
        layout = EntryLayout.of(self.weights)
        slotted = self.with_weights(layout.weights(layout.slab(1, "cpu")))
        width = self.weights["down_proj"].shape[2 if getattr(self.module, "is_transposed", False) else 1]
        x_TD, experts_TK = torch.ones(1, width, dtype=layout.dtype), torch.ones(1, 1, dtype=torch.int64)
        try:
            return not slotted.computed(x_TD, experts_TK, torch.zeros(1, 1)).any()
        except (RuntimeError, IndexError):
            return False

    def for_kernels(self, weights: ExpertWeights) -> ExpertWeights:
        return for_kernels(self.module, weights)

    @property
    def ffn(self) -> FFN:
        return ffn_of(self.module)
