"""The rows of a replay in which placements are made again along the trace, at the number of devices of the verdict.

A step's experts are assumed to take a time in proportion to the load of the busiest device (avg max load); `expert_ns` is that time under
contiguous placement. Moving experts takes its modelled time on the links, during which nothing else is done.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moeprof.analysis.placement.choice import least, makes_copies
from moeprof.analysis.placement.gain import Gain, gain
from moeprof.analysis.placement.moves import move_ns
from moeprof.analysis.placement.rebalancing import Followed, Least, Strategy, Timeline, outcomes, strategies_of
from moeprof.analysis.placement.virtual_parallel import AddressedValue, DeviceLinks
from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.arrays import Floats
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import BalanceRequest
from moeprof.records.units import NS_PER_S

RECEIVED = [0, 2]
"""The rows of what devices receive, within a node and between nodes."""

NOWHERE: Mapping[str, str] = {}


def strategy_point(strategy: Strategy, devices: int) -> str:
    """The point of a strategy: `balancer=greedy;devices=8;schedule=full;every=10`."""
    swept = {"balancer": strategy.balancer, "devices": devices, "schedule": strategy.schedule, "every": strategy.every}
    return format_point({name: str(value) for name, value in swept.items() if value})


@dataclass(frozen=True, eq=False)
class Rebalanced:
    """All strategies along one phase."""

    balance: BalanceRequest
    timeline: Timeline
    outcomes: Mapping[Strategy, Followed]

    def load(self, strategy: Strategy) -> float:
        """Avg max load, mean over layers."""
        return float(np.mean([top_B.mean() for top_B in self.tops(strategy).values()]))

    def tops(self, strategy: Strategy) -> dict[str, Floats]:
        """The share of the busiest device in every judged step, by layer; layers without a judged step are left out."""
        return {layer: top_B for layer, top_B in self.outcomes[strategy].tops.items() if len(top_B)}

    def gain(self, before: Strategy, after: Strategy, compared: int) -> Gain:
        """By what fraction `after` has less avg max load than `before`, from the same steps; one of so many gains that are compared."""
        old, new = self.tops(before), self.tops(after)
        steps = [self.timeline.judged(self.timeline.layers[layer]) for layer in old]
        return gain(steps, list(old.values()), list(new.values()), compared=compared)

    @cached_property
    def contiguous(self) -> Strategy | None:
        """Contiguous placement, if it can place these experts."""
        return next((strategy for strategy in self.outcomes if strategy == Strategy(CONTIGUOUS.name, "fixed")), None)

    def over_contiguous(self, strategy: Strategy) -> Gain | None:
        """The gain over contiguous placement; None for that itself, and if it cannot place these experts."""
        if self.contiguous is None or strategy == self.contiguous:
            return None
        return self.gain(self.contiguous, strategy, len(self.outcomes) - 1)

    @property
    def repeated(self) -> int:
        """The number of strategies that place again, which are compared with placing once."""
        return sum(strategy.repeats for strategy in self.outcomes)

    def best_once(self, strategy: Strategy) -> Strategy:
        """The best placement that is made once, of those that make copies as this balancer does; the first of equal ones."""
        copies = self.copies(strategy)
        alike = {one.balancer: one for one in self.outcomes if not one.repeats and self.copies(one) == copies}
        return alike[least({name: self.load(one) for name, one in alike.items()}) or ""]

    def copies(self, strategy: Strategy) -> bool:
        """Whether the balancer of a strategy places copies."""
        return makes_copies(self.balance, strategy.balancer, self.balance.focus)

    def move_ns(self, bytes_4D: Floats) -> float:
        """The time of one move at the bandwidths of the request."""
        return move_ns(bytes_4D, DeviceLinks(self.balance.bandwidth, self.balance.node_bandwidth))


def least_fall(balance: BalanceRequest, num_layers: int) -> Least:
    """How much the busiest device's load must fall for an exchange to save more time until the next placement than it takes.

    An exchange takes as long as one expert on the slowest link. Until the next placement, `every` steps, it saves
    every x (expert_ns / layers) x fall / (the busiest device's load under contiguous placement). 0 if one of the times is unknown.
    """
    size, time_ns = balance.trace.expert_bytes, balance.expert_ns
    slowest = min(balance.bandwidth, balance.node_bandwidth) if balance.nodes > 1 else balance.bandwidth
    devices = balance.focus

    def least(layer: str, weights_E: Floats, every: int) -> float:
        if not size or time_ns is None:
            return 0.0
        home_E = np.arange(len(weights_E)) * devices // len(weights_E)
        busiest = float(np.bincount(home_E, weights_E).max())
        return size[layer] / slowest * NS_PER_S / (every * time_ns / num_layers) * busiest

    return least


def rebalanced_values(balance: BalanceRequest, clusters: Mapping[str, Cluster], timeline: Timeline) -> Iterator[AddressedValue]:
    """Metric, value and address of every strategy with these balancers; nothing if the phase is too short to place again."""
    every = [steps for steps in balance.every if timeline.judged_steps > steps]
    if not every:
        return
    least = least_fall(balance, len(timeline.layers))
    strategies = strategies_of(list(clusters), every)
    found = Rebalanced(balance, timeline, outcomes(timeline, clusters, strategies, most=balance.most_moves, least=least))
    yield "rebalance_steps", timeline.judged_steps, {}
    yield "compared_repeats", found.repeated, {}
    for strategy, outcome in found.outcomes.items():
        at = {"point": strategy_point(strategy, balance.focus)}
        for metric, value, address in (*load_values(found, strategy), *move_values(found, strategy, outcome)):
            yield metric, value, at | address


def load_values(found: Rebalanced, strategy: Strategy) -> Iterator[AddressedValue]:
    """The busiest device's load, and the gain over contiguous placement."""
    yield "rebalanced_load", found.load(strategy), {}
    yield "rebalanced_imbalance", found.load(strategy) * found.balance.focus, {}
    if gained := found.over_contiguous(strategy):
        yield from with_ends("rebalance_gain", gained)


def move_values(found: Rebalanced, strategy: Strategy, outcome: Followed) -> Iterator[AddressedValue]:
    """Experts that were moved, their bytes and times if sizes are known, and what is left of the gain."""
    moved_R, size = outcome.moved_R(), found.balance.trace.expert_bytes
    yield "first_moved_experts", moved_R[0], {}
    if size:
        bytes_R4D = outcome.bytes_R4D(size)
        bytes_R, time_R = bytes_R4D[:, RECEIVED].sum(axis=(1, 2)), [found.move_ns(bytes_4D) for bytes_4D in bytes_R4D]
        yield "first_moved_bytes", bytes_R[0], {}
        yield "first_move_time", time_R[0], {}
        yield from payback(found, strategy, time_R[0])
    if strategy.repeats:
        yield "rebalances", len(moved_R) - 1, {}
        yield "rebalance_moved_experts", moved_R[1:].mean(), {}
    if strategy.repeats and size:
        yield "rebalance_moved_bytes", bytes_R[1:].mean(), {}
        yield "rebalance_step_bytes", bytes_R[1:].sum() / found.timeline.judged_steps, {}
        yield "rebalance_time", float(np.mean(time_R[1:])), {}
    if strategy.repeats:
        yield from repeat_values(found, strategy, sum(time_R[1:]) / found.timeline.judged_steps if size else None)


def payback(found: Rebalanced, strategy: Strategy, move_ns: float) -> Iterator[AddressedValue]:
    """The steps after which the first move has paid off, if the gain is measurable."""
    gained = found.over_contiguous(strategy) if found.balance.expert_ns and move_ns else None
    if gained and found.balance.expert_ns and gained.low > 0:
        yield "payback_steps", move_ns / (found.balance.expert_ns * gained.value), {}


def repeat_values(found: Rebalanced, strategy: Strategy, step_ns: float | None) -> Iterator[AddressedValue]:
    """The gain over the best placement made once, before and after the time of moves per step."""
    once = found.best_once(strategy)
    saved, at = found.gain(once, strategy, found.repeated), {"category": once.balancer}
    yield from with_ends("repeat_gain", saved, at)
    if step_ns is None or found.contiguous is None:
        return
    scale = found.load(once) / found.load(found.contiguous)
    if found.balance.expert_ns:
        cost = step_ns / (found.balance.expert_ns * scale)
        yield from with_ends("repeat_net_gain", Gain(saved.value - cost, saved.low - cost, saved.high - cost, saved.steps), at)
    if saved.low > 0:
        value, low, high = (step_ns / (share * scale) for share in (saved.value, saved.high, saved.low))
        yield from with_ends("break_even_time", Gain(value, low, high, saved.steps), at)


def with_ends(metric: str, found: Gain, at: Mapping[str, str] = NOWHERE) -> Iterator[AddressedValue]:
    """A number and the ends of its interval."""
    for end, value in (("", found.value), ("_low", found.low), ("_high", found.high)):
        yield f"{metric}{end}", value, dict(at)
