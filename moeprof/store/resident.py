"""The plainest store: every expert stays on the device, and one wave hands out all of them."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from torch import Tensor


class ExpertWeights(NamedTuple):
    """Views of the weights of some experts, stacked; biases always exist."""

    w1_EDF: Tensor
    b1_EF: Tensor
    w2_EFD: Tensor
    b2_ED: Tensor


class Wave(NamedTuple):
    """Weights of the consecutive physical experts `first`, `first` + 1, ..."""

    first: int
    weights: ExpertWeights


class Store(Protocol):
    """Hands out weights wave by wave; a view is valid until the next wave is asked for."""

    weights: ExpertWeights
    """What it keeps on the device."""

    def waves(self) -> Iterator[Wave]:
        """Covers every physical expert once, in order."""
        ...


class ResidentStore:
    """All experts in one wave."""

    def __init__(self, weights: ExpertWeights) -> None:
        self.weights = weights

    def waves(self) -> Iterator[Wave]:
        """One wave."""
        yield Wave(0, self.weights)
