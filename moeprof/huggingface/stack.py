"""The experts of one layer as variants execute them: their tensors stacked by expert, and what computes with them.

T tokens, K choices, E experts, D width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

from torch import Tensor, nn

from moeprof.moe.experts import FFN
from moeprof.store.resident import ExpertWeights


class Received(NamedTuple):
    """What a call gives the experts."""

    x_TD: Tensor
    experts_TK: Tensor
    """int64, from 0 to E - 1."""
    weights_TK: Tensor
    used_T: Tensor | None = None
    """Which rows reach an expert, (T,) bool; None if all do. The model itself drops the others."""


class TensorPlace(NamedTuple):
    """Where a tensor of one expert is in the module."""

    parameter: str
    row: int | None
    """The expert's place along the first dimension; None if the parameter is that of one expert."""


class ExpertStack(ABC):
    """One of the ways in which modules keep their experts. The parameters of `module` stay the only copy of the weights."""

    def __init__(self, module: nn.Module, num_experts: int) -> None:
        self.module, self.num_experts = module, num_experts
        self.kind = type(module).__name__

    names: Sequence[str]
    """The tensors of one expert, as the module names them."""

    parameter_names: Sequence[str]
    """The parameters of the module that hold them."""

    @property
    @abstractmethod
    def weights(self) -> ExpertWeights:
        """Those of all experts by `names`, not copied."""

    @abstractmethod
    def place(self, name: str, expert: int) -> TensorPlace:
        """Where the tensor `name` of an expert is."""

    @abstractmethod
    def refusal(self) -> str:
        """Why the experts can only run as their model runs them; empty if they need not."""

    @abstractmethod
    def ours_refusal(self) -> str:
        """Why our kernels cannot take them; empty if they can."""

    @abstractmethod
    def received(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Received:
        """What the arguments of a call of the module mean."""

    @abstractmethod
    def with_weights(self, weights: ExpertWeights) -> Self:
        """The same with S other experts in place of its own; ids from S on are sentinels, which no one computes."""

    @abstractmethod
    def computed(self, x_TD: Tensor, experts_TK: Tensor, weights_TK: Tensor) -> Tensor:
        """Outputs (T, D) by the forward function of the module's class; hooks and replacements are passed by."""

    def takes_sentinels(self) -> bool:
        """Whether a loop of the class's own skips ids that no expert has."""
        return True

    @abstractmethod
    def for_kernels(self, weights: ExpertWeights) -> ExpertWeights:
        """Views of such weights as kernels take them, matrices (P, inputs, outputs); nothing is copied."""

    @property
    @abstractmethod
    def ffn(self) -> FFN:
        """What kernels compute with these views: the module's own activations between their products."""
