"""Placements that are made again and again from the last steps, along a trace: what they gain, and what they move.

At steps W, W + N, W + 2 N, ... a placement is made from the W steps before, and judged on the N steps after, never on steps that it was
made from. All strategies are judged on the same steps, from step W on. Before the first placement, experts are where contiguous placement
has them. A new placement gives devices the names under which they keep the most experts.

Shape suffixes: E experts, B steps, D devices, S slots of a device, R placements; 4 as in `moves`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np

from moeprof.analysis.placement.device_load import history_of
from moeprof.analysis.placement.moves import fetched, home_slots, num_fetched
from moeprof.analysis.placement.trial import part_of
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix, pooled
from moeprof.policies.balancing.balancer import Cluster, History, Slots
from moeprof.policies.balancing.incremental import fewest_moves, rebalanced
from moeprof.policies.balancing.registry import BALANCERS, placed
from moeprof.records.arrays import Floats, Ints
from moeprof.records.compiled import compiled

Schedule = Literal["fixed", "once", "full", "incremental"]
"""Without loads and from the start; from the first window only; anew every N steps; by few exchanges every N steps."""


class Strategy(NamedTuple):
    """A balancer, and when it places experts."""

    balancer: str
    schedule: Schedule
    every: int = 0
    """Steps between two placements; 0 if there is only one."""

    @property
    def repeats(self) -> bool:
        """Whether experts are placed more than once."""
        return self.every > 0


def strategies_of(balancers: Sequence[str], every: Sequence[int]) -> list[Strategy]:
    """Every balancer with every schedule: those without influence of loads are fixed, and incremental placement may start from them."""
    found = []
    for name in balancers:
        fixed = BALANCERS[name].fixed
        found.append(Strategy(name, "fixed" if fixed else "once"))
        found += [] if fixed else [Strategy(name, "full", steps) for steps in every]
        found += [Strategy(name, "incremental", steps) for steps in every]
    return found


@dataclass(frozen=True, eq=False)
class Timeline:
    """The loads of the layers of a phase over its steps, all domains together."""

    layers: Mapping[str, LoadMatrix]
    window: int
    """Steps that a placement is made from."""

    @classmethod
    def of(cls, layers: Sequence[Sequence[LoadMatrix]], window: int) -> "Timeline":
        """The timeline of a phase from the matrices of every layer by domain."""
        return cls({matrices[0].layer: pooled(matrices) for matrices in layers}, window)

    @cached_property
    def steps_B(self) -> Counts:
        """The numbers of the steps of any layer, ascending."""
        return np.unique(np.concatenate([np.empty(0, np.int64), *(matrix.steps_B for matrix in self.layers.values())]))

    @property
    def judged_steps(self) -> int:
        """The number of steps after the first window."""
        return max(0, len(self.steps_B) - self.window)

    def columns(self, matrix: LoadMatrix, first: int, last: int) -> tuple[int, int]:
        """The first column of a layer that belongs to the steps `first` to `last - 1` of the timeline, and the one after the last."""
        ends = [self.steps_B[at] if at < len(self.steps_B) else self.steps_B[-1] + 1 for at in (first, last)]
        low, high = np.searchsorted(matrix.steps_B, ends)
        return int(low), int(high)

    def judged(self, matrix: LoadMatrix) -> Counts:
        """The numbers of the steps of a layer that strategies are judged on."""
        return matrix.steps_B[self.columns(matrix, self.window, len(self.steps_B))[0] :]

    def times(self, strategy: Strategy) -> range:
        """The steps before which a strategy places experts, as indices of the timeline."""
        return range(self.window, len(self.steps_B), strategy.every or len(self.steps_B))


@dataclass(frozen=True, eq=False)
class Followed:
    """What a strategy did along the trace."""

    tops: Mapping[str, Floats]
    """The share of the busiest device in every judged step, (B,) by layer."""
    moved: Mapping[str, Ints]
    """Experts that devices received and sent at every placement, (R, 4, D) by layer; none at the first one of a fixed placement."""

    def moved_R(self) -> Ints:
        """Experts that any device received at every placement, over all layers, (R,)."""
        return np.array([sum(num_fetched(layer_R4D[at]) for layer_R4D in self.moved.values()) for at in range(self.placements)])

    def bytes_R4D(self, expert_bytes: Mapping[str, int]) -> Floats:
        """What devices received and sent at every placement over all layers, in bytes."""
        return np.asarray(np.sum([layer_R4D * float(expert_bytes[layer]) for layer, layer_R4D in self.moved.items()], axis=0))

    @property
    def placements(self) -> int:
        """The number of placements, with the first one."""
        return len(next(iter(self.moved.values())))


Least = Callable[[str, Floats, int], float]
"""From layer, weights (E,) and steps until the next placement: by how much an exchange must lower the busiest device's load."""


def outcomes(
    timeline: Timeline,
    clusters: Mapping[str, Cluster],
    strategies: Sequence[Strategy],
    *,
    most: int,
    least: Least = lambda layer, weights_E, every: 0.0,
) -> dict[Strategy, Followed]:
    """What every strategy did; `clusters` are by balancer, and a device receives `most` experts of a layer per incremental placement."""
    found: dict[Strategy, Followed] = {strategy: Followed({}, {}) for strategy in strategies}
    for layer, matrix in timeline.layers.items():
        for strategy, slots_R in placements_along(timeline, matrix, clusters, strategies, most, least).items():
            times, cluster = timeline.times(strategy), clusters[strategy.balancer]
            tops = [
                busiest_shares(matrix, slots_DS, *timeline.columns(matrix, at, at + times.step))
                for at, slots_DS in zip(times, slots_R, strict=True)
            ]
            before = slots_R[0] if BALANCERS[strategy.balancer].fixed else home_slots(matrix.num_experts, cluster.num_devices)
            moved = [
                fetched(old, new, matrix.num_experts, cluster.num_nodes)
                for old, new in zip([before, *slots_R], slots_R, strict=False)
            ]
            found[strategy].tops[layer], found[strategy].moved[layer] = np.concatenate(tops), np.array(moved)  # type: ignore[index]
    return found


def placements_along(
    timeline: Timeline,
    matrix: LoadMatrix,
    clusters: Mapping[str, Cluster],
    strategies: Sequence[Strategy],
    most: int,
    least: Least,
) -> dict[Strategy, list[Slots]]:
    """The placements of one layer by every strategy, one for each of its times; each depends on steps before its time only."""
    found: dict[Strategy, list[Slots]] = {strategy: [] for strategy in strategies}
    times = {strategy: timeline.times(strategy) for strategy in strategies}
    for at in sorted({at for own in times.values() for at in own}):
        history = history_within(matrix, *timeline.columns(matrix, at - timeline.window, at))
        fresh: dict[str, Slots] = {}
        for strategy, slots_R in found.items():
            if at not in times[strategy]:
                continue
            if slots_R and strategy.schedule == "incremental":
                least_fall = least(matrix.layer, history.weights_E, strategy.every)
                slots_R.append(rebalanced(slots_R[-1], history.weights_E, most, least_fall))
                continue
            name, cluster = strategy.balancer, clusters[strategy.balancer]
            if name not in fresh:
                fresh[name] = placed(name, history, cluster)
            before = slots_R[-1] if slots_R else home_slots(matrix.num_experts, cluster.num_devices)
            nodes = cluster.num_nodes if BALANCERS[name].by_node else 1
            slots_R.append(
                fresh[name] if strategy.schedule == "fixed" else np.ascontiguousarray(fewest_moves(before, fresh[name], nodes))
            )
    return found


def history_within(matrix: LoadMatrix, first: int, last: int) -> History:
    """The history of the columns `first` to `last - 1`; even loads if there are none."""
    if first == last:
        return History.of_totals(np.zeros(matrix.num_experts))
    return history_of(part_of(matrix, first, last))


def busiest_shares(matrix: LoadMatrix, slots_DS: Slots, first: int, last: int) -> Floats:
    """`top_shares` of the columns `first` to `last - 1`, (B,), without a matrix of these columns."""
    low, high = np.searchsorted(matrix.column_N, (first, last)).tolist()
    counts_WN = matrix.count_WN if slots_DS.size > matrix.num_experts else matrix.count_N[None]
    cells = matrix.column_N[low:high], matrix.expert_N[low:high], counts_WN[:, low:high]
    return busiest(*cells, matrix.steps_B[first:last], first, slots_DS, matrix.num_experts)


@compiled
def busiest(
    column_N: Counts, expert_N: Counts, count_WN: Counts, steps_B: Counts, first: int, slots_DS: Slots, num_experts: int
) -> Floats:
    """The share of the busiest device in each step, (B,), if copies of an expert serve its choices in turn as in `device_load`."""
    copies_E = np.zeros(num_experts + 1, np.int64)
    for device in range(slots_DS.shape[0]):
        for slot in range(slots_DS.shape[1]):
            copies_E[slots_DS[device, slot]] += 1
    first_E, device_P = np.cumsum(copies_E) - copies_E, np.empty(slots_DS.size, np.int64)
    filled_E = first_E.copy()
    for device in range(slots_DS.shape[0]):
        for slot in range(slots_DS.shape[1]):
            expert = slots_DS[device, slot]
            device_P[filled_E[expert]] = device
            filled_E[expert] += 1
    top_B, load_D, at = np.zeros(len(steps_B)), np.zeros(len(slots_DS), np.int64), 0
    for column in range(len(steps_B)):
        load_D[:] = 0
        while at < len(column_N) and column_N[at] == first + column:
            expert = expert_N[at]
            copies = copies_E[expert]
            for rank in range(len(count_WN)):
                if copies == 1:
                    load_D[device_P[first_E[expert]]] += count_WN[rank, at]
                    continue
                for copy in range(copies):
                    late = (copy - steps_B[column] - rank) % copies
                    load_D[device_P[first_E[expert] + copy]] += (count_WN[rank, at] + copies - 1 - late) // copies
            at += 1
        top_B[column] = load_D.max() / max(1, load_D.sum())
    return top_B
