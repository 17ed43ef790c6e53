"""Experts that are modules of their own, in a dictionary or list that is called as a whole: their weights are stacked once.

T tokens, K choices, E experts, D width.
"""

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from copy import copy
from functools import cached_property
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from moeprof.huggingface.stack import ExpertStack, TensorPlace
from moeprof.moe.experts import FFN, Product
from moeprof.records.ffn.form import Matrix, widening
from moeprof.store.resident import ExpertWeights


class SeparateExperts(ExpertStack):
    """The experts' parameters become views of the stack, so that the model itself and every variant use one copy."""

    def __init__(self, module: nn.Module, num_experts: int) -> None:
        super().__init__(module, num_experts)
        self.experts = dict(module.named_children())
        self.keys = list(self.experts)
        self.names = tuple(name for name, _ in self.one.named_parameters())
        self.parameter_names = [f"{key}.{name}" for key, one in self.experts.items() for name, _ in one.named_parameters()]

    @property
    def one(self) -> nn.Module:
        """The first expert, which all others are like."""
        return self.experts[self.keys[0]]

    @cached_property
    @torch.no_grad()
    def weights(self) -> ExpertWeights:
        return ExpertWeights((name, self.stacked(name)) for name in self.names)

    def stacked(self, name: str) -> Tensor:
        """The parameters of this name, (E, ...); each becomes a view of its part as soon as it is copied, which frees its own memory."""
        parameters = [one.get_parameter(name) for one in self.experts.values()]
        whole = parameters[0].new_empty(len(parameters), *parameters[0].shape)
        for parameter, part in zip(parameters, whole, strict=True):
            parameter.data = part.copy_(parameter)
        return whole

    def place(self, name: str, expert: int) -> TensorPlace:
        return TensorPlace(f"{self.keys[expert]}.{name}", None)

    def refusal(self) -> str:
        if next(self.module.buffers(), None) is not None:
            return f"the experts of {self.kind} have buffers"
        forms = {tuple((n, p.shape, p.dtype, p.device) for n, p in one.named_parameters()) for one in self.experts.values()}
        return f"the experts of {self.kind} differ in their tensors, or in where these are" if len(forms) > 1 else ""

    def ours_refusal(self) -> str:
        linear = {f"{path}.{name}" for path, layer in self.linear.items() for name, _ in layer.named_parameters()}
        if unknown := set(self.names) - linear:
            return f"the experts of {self.kind} have tensors outside of linear layers: {', '.join(sorted(unknown))}"
        return "" if self.weights.floating else f"{self.kind} has quantised experts"

    @property
    def linear(self) -> dict[str, nn.Linear]:
        """The linear layers of an expert, which kernels take the place of."""
        return {path: layer for path, layer in self.one.named_modules() if type(layer) is nn.Linear}

    @abstractmethod
    def arguments(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor, num_experts: int) -> tuple[Tensor, ...]:
        """The arguments of a call of the module if it had `num_experts` experts; ids from there on are sentinels."""

    def with_weights(self, weights: ExpertWeights) -> Self:
        twin = copy(self)
        vars(twin)["weights"] = weights
        return twin

    def computed(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """The experts that have a row get the weights of their places."""
        num_experts = self.weights.num_experts
        used = [index for index in set(experts_TK.flatten().tolist()) if index < num_experts]
        tensors = {f"{self.keys[index]}.{name}": whole[index] for name, whole in self.weights.items() for index in used}
        arguments = self.arguments(x_TD, experts_TK, weights_TK, num_experts)
        return cast("Tensor", cast("Any", type(self.module)).forward(altered(self.module, tensors), *arguments))

    def for_kernels(self, weights: ExpertWeights) -> ExpertWeights:
        return weights.map(lambda whole: whole.mT if whole.dim() == 3 else whole)

    @cached_property
    def ffn(self) -> FFN:
        """The forward function of one expert, with a kernel's products in place of its linear layers."""
        layers = {path: KernelProduct(path, layer.weight.dtype) for path, layer in self.linear.items()}
        expert = altered(self.one, layers)

        def ffn(rows: Tensor, product: Product) -> Tensor:
            for layer in layers.values():
                layer.product = product
            return cast("Tensor", expert.forward(rows))

        return ffn


class KernelProduct(nn.Module):
    """In place of a linear layer: its product by a kernel."""

    product: Product

    def __init__(self, path: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = Matrix(f"{path}.weight", f"{path}.bias", widening)
        self.weight = torch.empty(0, dtype=dtype)
        """Experts ask for its type; it has no values."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.product(rows, self.matrix)


def altered(module: nn.Module, changes: Mapping[str, Tensor | nn.Module]) -> nn.Module:
    """A second module that shares everything with `module` but the parameters and modules of these dotted names."""
    twin, inside = copy(module), defaultdict[str, dict[str, Tensor | nn.Module]](dict)
    twin._parameters, twin._modules = dict(module._parameters), dict(module._modules)
    for path, change in changes.items():
        name, _, rest = path.partition(".")
        if rest:
            inside[name][rest] = change
        else:
            (twin._modules if isinstance(change, nn.Module) else twin._parameters)[name] = change  # type: ignore[assignment]
    for name, within in inside.items():
        twin._modules[name] = altered(module.get_submodule(name), within)
    return twin
