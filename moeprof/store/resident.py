"""The simplest store: every expert stays on the device, and one wave contains all of them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

Offsets = range | list[int] | Tensor
"""Bounds of each expert's rows, one more than there are experts."""


class ExpertWeights(dict[str, Tensor]):
    """Views of the weights of some experts by the names of an FFN's tensors, stacked along their first dimension.

    All have the same dtype and device. A form without biases has only matrices.
    """

    @property
    def num_experts(self) -> int:
        """How many experts are stacked."""
        return len(self.first)

    @property
    def first(self) -> Tensor:
        """The first of the tensors, for the dtype and the device of all."""
        return next(iter(self.values()))

    @property
    def floating(self) -> bool:
        """Whether all are floating-point numbers, and none is quantised."""
        return all(whole.is_floating_point() for whole in self.values())

    def map(self, change: Callable[[Tensor], Tensor]) -> "ExpertWeights":
        """The same tensors, each changed, under their names."""
        return ExpertWeights((name, change(whole)) for name, whole in self.items())

    def unstacked(self) -> list["ExpertWeights"]:
        """The weights of each expert, without a first dimension."""
        return [
            ExpertWeights(zip(self, one, strict=True)) for one in zip(*(whole.unbind() for whole in self.values()), strict=True)
        ]


Send = Callable[[Tensor, list[int]], None]
"""Takes rows (N, D), those of each expert one after another, and how many each has, to where other experts are."""


class Wave(NamedTuple):
    """Experts whose weights are on the device now, or that need none of them."""

    experts: Sequence[int] | None
    """The physical expert at each index of `weights`, -1 if the wave has none there; None for all experts in order."""
    weights: ExpertWeights | None
    """None for experts that are computed elsewhere or not at all."""
    send: Send | None = None
    """Begins the computation elsewhere; a later wave of the same experts has the outputs."""
    outputs_ND: Tensor | None = None
    """What was computed elsewhere; 0 for experts of a wave that has neither weights nor this nor `send`."""


class Store(Protocol):
    """Gives out weights wave by wave; the views of a wave are valid until the next wave."""

    weights: ExpertWeights
    """Views of all experts or cache slots."""

    def expect(self, offsets: Offsets) -> None:
        """Announces which experts have rows in the current step, as soon as that is known."""
        ...

    def waves(self) -> Iterator[Wave]:
        """Covers every physical expert that has rows once, or twice if it is computed elsewhere; a wave may reuse the memory of the one
        before."""
        ...


class ResidentStore:
    """All experts in one wave."""

    def __init__(self, weights: ExpertWeights) -> None:
        self.weights = weights

    def expect(self, offsets: Offsets) -> None:
        """Does nothing, since all experts are on the device."""

    def waves(self) -> Iterator[Wave]:
        """A single wave of all experts."""
        yield Wave(None, self.weights)
