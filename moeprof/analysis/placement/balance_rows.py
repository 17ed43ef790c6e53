"""From the trials of placements to rows of `metrics.csv`: by layer, and over layers with their quantiles.

A domain's rows are those of its test steps, and `category` is the domain whose history made the placement.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from moeprof.analysis.placement.device_load import device_counts, floor_shares, load_values, over_layers
from moeprof.analysis.placement.trial import Placed, Trial, cluster_for, crossed_trials, num_moved, trial_of
from moeprof.analysis.placement.virtual_parallel import Choices, choices_of
from moeprof.analysis.placement.virtual_rows import virtual_rows
from moeprof.analysis.routing.drift import domain_pairs, drift_metrics
from moeprof.analysis.routing.layer_rows import Values
from moeprof.analysis.routing.layer_rows import over_layers as mean_of_layers
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.arrays import Floats
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.run.replay import BalanceRequest
from moeprof.records.traces.routing_trace import RoutingTrace

Advance = Callable[[], None]

HALVES = "history vs test"
"""The category of a drift that no second domain is needed for."""

MOST_DEVICES = 64
"""More of them have no rows of their own."""


@dataclass(frozen=True, eq=False)
class PhaseLoads:
    """One phase's loads, and what was asked."""

    name: str
    balance: BalanceRequest
    variant: str
    layers: Sequence[Sequence[LoadMatrix]]
    """Of each layer, a matrix per domain."""
    ranks: Sequence[RoutingTrace] = ()
    """Traces, where loads come from some; tokens of other loads belong to nobody."""
    possible: Sequence[tuple[str, int]] = field(default=())
    """Balancers, and numbers of devices that they can place experts on."""

    @cached_property
    def trial(self) -> Trial:
        """Each domain's earlier half against its later one."""
        return trial_of(self.layers)

    @cached_property
    def choices(self) -> dict[str, Choices]:
        """Of the layers that are placed, where tokens are known."""
        found = {layer: choices_of(self.ranks, layer) for layer in self.trial.halves if self.ranks}
        return {layer: choices for layer, choices in found.items() if choices}

    def cluster(self, name: str, devices: int) -> Cluster:
        """As asked."""
        balance = self.balance
        return cluster_for(name, balance.trace.num_experts, devices, nodes=balance.nodes, replicas=balance.replicas)

    def row(self, metric: str, value: float, **address: Any) -> MetricRow:
        """At an address of this phase."""
        trace = self.balance.trace
        return MetricRow(metric, float(value), trace.workload, self.name, variant=self.variant, forced=trace.forced, **address)

    def rows(self, values: Values, **address: Any) -> Iterator[MetricRow]:
        """Several at one address."""
        return (self.row(metric, value, **address) for metric, value in values.items())


def balance_rows(phase: PhaseLoads, advance: Advance) -> Iterator[MetricRow]:
    """All of a phase; `advance` is called after every balancer and number of devices."""
    yield from drift_rows(phase)
    crosses = crossed_trials(phase.layers)
    if phase.trial.halves:
        yield phase.row("history_steps", phase.trial.history_steps)
        yield phase.row("test_steps", phase.trial.test_steps)
    for devices in phase.balance.devices:
        point = format_point({"devices": devices})
        yield phase.row("ideal_load", 1 / devices, point=point)
        yield from floor_rows(phase, phase.trial, devices)
        for (past, future), trial in crosses.items():
            yield from floor_rows(phase, trial, devices, domain=future, category=past)
        before: dict[str, Floats] = {}
        for name in (name for name, number in phase.possible if number == devices):
            placements = phase.trial.place(name, phase.cluster(name, devices))
            tops = phase.trial.tops(placements)
            before = before or (tops if name == CONTIGUOUS.name else {})
            yield from placement_rows(phase, name, devices, placements, tops, before)
            for (past, future), trial in crosses.items():
                crossed_tops = trial.tops(trial.place(name, phase.cluster(name, devices)))
                yield from load_rows(phase, crossed_tops, at(name, devices), domain=future, category=past)
            advance()


def at(name: str, devices: int) -> str:
    """`balancer=greedy;devices=8`."""
    return format_point({"balancer": name, "devices": devices})


def load_rows(phase: PhaseLoads, tops: Mapping[str, Floats], point: str, **address: str) -> Iterator[MetricRow]:
    """Of every layer, and over them."""
    layers = {layer: load_values(top_B) for layer, top_B in tops.items()}
    yield from every_layer(phase, layers, point=point, **address)


def floor_rows(phase: PhaseLoads, trial: Trial, devices: int, **address: str) -> Iterator[MetricRow]:
    """What no placement without copies can pass."""
    layers = {
        layer: {f"{name}_floor": value for name, value in load_values(floor_shares(halves.test, devices)).items()}
        for layer, halves in trial.halves.items()
    }
    yield from every_layer(phase, layers, point=format_point({"devices": devices}), **address)


def every_layer(phase: PhaseLoads, layers: Mapping[str, Values], **address: str) -> Iterator[MetricRow]:
    """Each, and all of them."""
    for layer, values in layers.items():
        yield from phase.rows(values, layer=layer, **address)
    if layers:
        yield from phase.rows(over_layers(list(layers.values())), **address)


def placement_rows(
    phase: PhaseLoads, name: str, devices: int, placements: Placed, tops: Mapping[str, Floats], before: Mapping[str, Floats]
) -> Iterator[MetricRow]:
    """What one balancer brings, and what it costs."""
    point = at(name, devices)
    yield from load_rows(phase, tops, point)
    yield phase.row("device_slots", phase.cluster(name, devices).num_slots, point=point)
    if before and name != CONTIGUOUS.name:
        found = phase.trial.gain(before, tops)
        yield from phase.rows({"load_gain": found.value, "load_gain_low": found.low, "load_gain_high": found.high}, point=point)
    if placements:
        yield from move_rows(phase, placements, point)
    if devices == phase.balance.focus <= MOST_DEVICES:
        yield from device_rows(phase, placements, point)
    if phase.choices:
        yield from phase_virtual_rows(phase, name, devices, placements)


def move_rows(phase: PhaseLoads, placements: Placed, point: str) -> Iterator[MetricRow]:
    """Weights that devices must fetch."""
    trace = phase.balance.trace
    moved = {layer: num_moved(slots_DS, trace.num_experts) for layer, slots_DS in placements.items()}
    for layer, number in moved.items():
        yield phase.row("moved_experts", number, point=point, layer=layer)
    yield phase.row("moved_experts", sum(moved.values()), point=point)
    if trace.expert_bytes:
        yield phase.row("moved_bytes", sum(number * trace.expert_bytes[layer] for layer, number in moved.items()), point=point)


def device_rows(phase: PhaseLoads, placements: Placed, point: str) -> Iterator[MetricRow]:
    """Of every device, as `rank`, in each layer."""
    for layer, slots_DS in placements.items():
        test = phase.trial.halves[layer].test
        mean_D = (device_counts(test, slots_DS) / test.choices_B).mean(axis=1)
        for device, load in enumerate(mean_D.tolist()):
            yield phase.row("device_load", load, point=point, layer=layer, rank=str(device))


def phase_virtual_rows(phase: PhaseLoads, name: str, devices: int, placements: Placed) -> Iterator[MetricRow]:
    """Traffic and waiting, over the whole trace."""
    for metric, value, address in virtual_rows(phase.balance, phase.choices, placements, phase.cluster(name, devices)):
        yield phase.row(metric, value, point=at(name, devices), **address)


def drift_rows(phase: PhaseLoads) -> Iterator[MetricRow]:
    """How far the test is from the history, and domains from each other; over layers their mean."""
    found: dict[str, list[Values]] = {}
    for layer, halves in phase.trial.halves.items():
        later = drift_metrics(halves.history.counts_E, halves.test.counts_E)
        found.setdefault(HALVES, []).append(later)
        yield from phase.rows(later, layer=layer, category=HALVES)
    for matrices in phase.layers:
        for pair, values in domain_pairs(matrices):
            found.setdefault(pair, []).append(values)
            yield from phase.rows(values, layer=matrices[0].layer, category=pair)
    for category, layers in found.items():
        yield from phase.rows(mean_of_layers(layers), category=category)
