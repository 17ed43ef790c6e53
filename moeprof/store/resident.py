"""The plainest store: every expert stays on the device, and one wave hands out all of them."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

Offsets = range | list[int] | Tensor
"""Bounds of every expert's rows, one more than there are experts."""


class ExpertWeights(NamedTuple):
    """Views of the weights of some experts, stacked; biases always exist."""

    w1_EDF: Tensor
    b1_EF: Tensor
    w2_EFD: Tensor
    b2_ED: Tensor


class Wave(NamedTuple):
    """Weights that are there now."""

    experts: Sequence[int] | None
    """The physical expert in each place of `weights`, -1 where the wave has none; None for all experts in order."""
    weights: ExpertWeights


class Store(Protocol):
    """Hands out weights wave by wave; a view is valid until the next wave is asked for."""

    weights: ExpertWeights
    """All that there is room for."""

    def expect(self, offsets: Offsets) -> None:
        """Says which experts have rows in the step that begins, as soon as that is known."""
        ...

    def waves(self) -> Iterator[Wave]:
        """Covers every physical expert that has rows once, each wave with what the one before no longer needs."""
        ...


class ResidentStore:
    """All experts in one wave."""

    def __init__(self, weights: ExpertWeights) -> None:
        self.weights = weights

    def expect(self, offsets: Offsets) -> None:
        """Nothing: all are there."""

    def waves(self) -> Iterator[Wave]:
        """One wave."""
        yield Wave(None, self.weights)
