"""Predictions of what later layers will use, from what earlier steps used: the ones that a replay can make too.

A wrong hint costs time, never correctness.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from moeprof.policies.offloading.planner import HIGH, Demand
from moeprof.records.recipe.offloading import Offloading


class Foresight(Protocol):
    """Predicts the experts of the layers that come next."""

    history: dict[int, Any]
    """By layer, what earlier steps used, as far as predictions are made from it; always the same object."""

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterable[tuple[int, list[Demand]]]:
        """Layers and what they are expected to use, the nearest first, while `layer` begins with its own demands.

        `x_TD` are the rows that its router saw; None in a replay.
        """
        ...


def foresight_of(choice: Offloading, sizes: Sequence[int], of_model: Foresight | None = None) -> Foresight | None:
    """The prediction of a system for layers of so many experts: that of a model if it is given, otherwise from the routing alone.

    None if the system makes no prediction, or makes one that needs a model.
    """
    kinds: dict[str, Callable[[], Foresight]] = {
        "last-step": lambda: LastStep(len(sizes), choice.depth),
        "most-used": lambda: MostUsed(len(sizes), choice.depth),
        "layers": lambda: WholeLayers(len(sizes), choice.depth, sizes, (HIGH, *choice.low)[-1]),
    }
    found = of_model or (kinds[choice.foresight]() if choice.foresight in kinds else None)
    return Shuffled(found, sizes) if found is not None and choice.shuffled else found


def following(layer: int, num_layers: int, depth: int) -> Iterator[int]:
    """The next `depth` layers in the order of execution; after the last one comes the first of the next step."""
    return ((layer + ahead) % num_layers for ahead in range(1, min(depth, num_layers - 1) + 1))


class LastStep:
    """What the layer used in the step before."""

    def __init__(self, num_layers: int, depth: int = 1) -> None:
        self.num_layers, self.depth = num_layers, depth
        self.history: dict[int, list[Demand]] = {}

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterator[tuple[int, list[Demand]]]:
        """The demands of the step before, unchanged."""
        self.history[layer] = list(demands)
        for target in following(layer, self.num_layers, self.depth):
            yield target, self.history.get(target, [])


class MostUsed:
    """The experts that the layer used most often so far, as many as the step in progress uses."""

    def __init__(self, num_layers: int, depth: int = 1) -> None:
        self.num_layers, self.depth = num_layers, depth
        self.history: dict[int, Counter[int]] = {}

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterator[tuple[int, list[Demand]]]:
        """Most used first, ties to the lowest id; at the model's own precision."""
        self.history.setdefault(layer, Counter()).update(one.expert for one in demands)
        for target in following(layer, self.num_layers, self.depth):
            used = self.history.get(target, Counter())
            yield target, [Demand(expert) for expert in sorted(used, key=lambda one: (-used[one], one))[: len(demands)]]


class WholeLayers:
    """M2Cache: all experts of the next layers, whatever the routing."""

    def __init__(self, num_layers: int, depth: int, num_experts: Sequence[int], precision: str) -> None:
        self.num_layers, self.depth, self.num_experts, self.precision = num_layers, depth, num_experts, precision
        self.history: dict[int, Any] = {}

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterator[tuple[int, list[Demand]]]:
        """All ids of each layer, rising."""
        for target in following(layer, self.num_layers, self.depth):
            yield target, [Demand(expert, self.precision) for expert in range(self.num_experts[target])]


class Shuffled:
    """The placebo of a prediction: the same number of experts, under a fixed permutation of ids that leaves none in place."""

    def __init__(self, told: Foresight, num_experts: Sequence[int], seed: int = 0) -> None:
        self.told, self.history = told, told.history
        self.mapping = [derangement(count, seed) for count in num_experts]

    def hints(self, layer: int, demands: Sequence[Demand], x_TD: Any = None) -> Iterator[tuple[int, list[Demand]]]:
        """The hints with other ids."""
        for target, hinted in self.told.hints(layer, demands, x_TD):
            yield target, [Demand(self.mapping[target][one.expert], one.precision) for one in hinted]


def derangement(count: int, seed: int) -> list[int]:
    """A permutation without a fixed point, if there is one: a random order, each id mapped to its successor in it."""
    order = np.random.default_rng(seed).permutation(count)
    mapping = [0] * count
    for one, other in zip(order, np.roll(order, -1), strict=True):
        mapping[int(one)] = int(other)
    return mapping
