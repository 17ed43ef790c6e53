"""The rows of a replay of placements: by layer, and over layers with their quantiles.

The rows of a domain are those of its test steps, and `category` is the domain whose history made the placement.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from moeprof.analysis.placement.choice import rivals
from moeprof.analysis.placement.device_load import device_counts, floor_shares, load_values, over_layers
from moeprof.analysis.placement.gain import Gain
from moeprof.analysis.placement.rebalancing import Timeline
from moeprof.analysis.placement.rebalancing_rows import rebalanced_values
from moeprof.analysis.placement.replica_rows import replica_values
from moeprof.analysis.placement.trial import Placed, Trial, cluster_for, crossed_trials, num_moved, totals_trial, trial_of
from moeprof.analysis.placement.virtual_parallel import AddressedValue, Choices, choices_of, virtual_rows
from moeprof.analysis.routing.drift import HALVES, DomainPair, category_of, domain_pairs, drift_metrics
from moeprof.analysis.routing.layer_rows import Values
from moeprof.analysis.routing.layer_rows import over_layers as mean_of_layers
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS, check
from moeprof.records.arrays import Floats
from moeprof.records.errors import UsageError
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.run.replay import BalanceRequest
from moeprof.records.run.run import RunRecord
from moeprof.records.traces.routing_trace import RoutingTrace

MOST_DEVICES = 64
"""With more devices there are no rows per device."""


@dataclass(frozen=True)
class BalanceInputs:
    """What the rows of a replay of placements are derived from, beside `run.json`."""

    variant: str
    layers: Mapping[str, Sequence[Sequence[LoadMatrix]]]
    """By phase, then by layer in the order of execution, then by domain."""
    ranks: Mapping[str, Sequence[RoutingTrace]] = field(default_factory=dict)
    """The traces of each phase, one per rank; empty if the source is a count table, whose choices belong to no token."""
    resized: Mapping[int, Mapping[str, Sequence[Sequence[LoadMatrix]]]] = field(default_factory=dict)
    """The matrices of `layers` for other numbers of tokens per step."""


@dataclass(frozen=True, eq=False)
class PhaseLoads:
    """The loads of one phase, with the request."""

    name: str
    balance: BalanceRequest
    variant: str
    layers: Sequence[Sequence[LoadMatrix]]
    """For each layer a matrix per domain."""
    ranks: Sequence[RoutingTrace] = ()
    resized: Mapping[int, Sequence[Sequence[LoadMatrix]]] = field(default_factory=dict)
    """`layers` for other numbers of tokens per step."""

    @cached_property
    def trial(self) -> Trial:
        """The earlier half of each domain against its later half, or totals against themselves."""
        return totals_trial(self.layers) if self.totals_only else trial_of(self.layers)

    @property
    def totals_only(self) -> bool:
        """Whether there is one total for each layer, on which a placement can be made but not tested."""
        return not self.ranks and all(len(matrices) == 1 and matrices[0].num_steps == 1 for matrices in self.layers)

    @cached_property
    def timeline(self) -> Timeline:
        """The steps of all domains one after the other, with the window of placements that are made again."""
        return Timeline.of(self.layers, self.balance.window)

    @cached_property
    def choices(self) -> dict[str, Choices]:
        """The choices of each layer that is placed; {} if they belong to no token."""
        found = {layer: choices_of(self.ranks, layer) for layer in self.trial.halves if self.ranks}
        return {layer: choices for layer, choices in found.items() if choices}

    def trial_of_size(self, tokens: int) -> Trial:
        """The trial with so many tokens in a step, one of the requested numbers."""
        return trial_of(self.resized[tokens]) if tokens in self.resized else self.trial

    def cluster(self, name: str, devices: int) -> Cluster:
        """The devices and physical experts that a balancer places on."""
        return requested_cluster(self.balance, name, devices)

    def row(self, metric: str, value: float, **address: Any) -> MetricRow:
        """A row of this phase, workload and variant."""
        trace = self.balance.trace
        return MetricRow(metric, float(value), trace.workload, self.name, variant=self.variant, forced=trace.forced, **address)

    def rows(self, values: Values, **address: Any) -> Iterator[MetricRow]:
        """Several metrics at one address."""
        return (self.row(metric, value, **address) for metric, value in values.items())


def balance_rows(record: RunRecord, inputs: BalanceInputs, advance: Callable[[], None] = lambda: None) -> Iterator[MetricRow]:
    """Every row of a replay of placements; `advance` is called after each phase, balancer and number of devices.

    Only `record.balance` and `inputs` count, so a recorded replay can be derived again from its trace.
    """
    pairs, _ = feasible_pairs(record.balanced)
    for phase in phases_of(record.balanced, inputs):
        yield from phase_rows(phase, pairs, advance)


def phases_of(balance: BalanceRequest, inputs: BalanceInputs) -> list[PhaseLoads]:
    """The loads of every phase."""
    return [
        PhaseLoads(
            name,
            balance,
            inputs.variant,
            layers,
            inputs.ranks.get(name, ()),
            {tokens: phases[name] for tokens, phases in inputs.resized.items()},
        )
        for name, layers in inputs.layers.items()
    ]


def requested_cluster(balance: BalanceRequest, name: str, devices: int) -> Cluster:
    """The cluster that the request describes, for one balancer and number of devices."""
    experts = balance.trace.num_experts
    return cluster_for(name, experts, devices, nodes=balance.nodes, groups=balance.groups, replicas=balance.replicas)


def feasible_pairs(balance: BalanceRequest) -> tuple[list[tuple[str, int]], list[UsageError]]:
    """Every (balancer, devices) that can place these experts, and an error for each other pair."""
    pairs, infeasible = [], []
    for devices in balance.devices:
        for name in balance.balancers:
            try:
                check(BALANCERS[name], balance.trace.num_experts, requested_cluster(balance, name, devices))
                pairs.append((name, devices))
            except UsageError as error:
                infeasible.append(error)
    return pairs, infeasible


def phase_rows(phase: PhaseLoads, pairs: Sequence[tuple[str, int]], advance: Callable[[], None]) -> Iterator[MetricRow]:
    """The rows of one phase: drift, steps, then floors and placements for each number of devices."""
    if not phase.totals_only:
        yield from drift_rows(phase)
    if phase.trial.halves:
        yield phase.row("history_steps", phase.trial.history_steps)
    if phase.trial.halves and not phase.totals_only:
        yield phase.row("test_steps", phase.trial.test_steps)
        yield phase.row("test_step_tokens", phase.trial.step_tokens)
    if phase.balance.tokens_per_step:
        yield from step_size_rows(phase, [name for name, devices in pairs if devices == phase.balance.focus])
    if phase.balance.replica_numbers and phase.trial.halves:
        names = [name for name, devices in pairs if devices == phase.balance.focus]
        yield from addressed(phase, replica_values(phase.balance, phase.trial, names, tested=not phase.totals_only))
    if phase.balance.every:
        yield from along_rows(phase, [name for name, devices in pairs if devices == phase.balance.focus])
    crosses = crossed_trials(phase.layers)
    for devices in phase.balance.devices:
        yield from all_floor_rows(phase, crosses, devices)
        yield from balancer_rows(phase, [name for name, number in pairs if number == devices], devices, crosses, advance)


def balancer_rows(
    phase: PhaseLoads,
    names: Sequence[str],
    devices: int,
    crosses: Mapping[tuple[str, str], Trial],
    advance: Callable[[], None],
) -> Iterator[MetricRow]:
    """What every balancer does on so many devices."""
    if CONTIGUOUS.name in names and phase.trial.halves and not phase.totals_only:
        yield phase.row("compared_gains", rivals(names), point=format_point({"devices": devices}))
    before: dict[str, Floats] = {}
    for name in names:
        placements = phase.trial.place(name, phase.cluster(name, devices))
        tops = phase.trial.tops(placements)
        before = before or (tops if name == CONTIGUOUS.name else {})
        yield from placement_rows(phase, name, devices, placements, tops, before, rivals(names))
        for (past, future), trial in crosses.items():
            crossed_tops = trial.tops(trial.place(name, phase.cluster(name, devices)))
            yield from load_rows(phase, crossed_tops, at(name, devices), domain=future, category=past)
        advance()


def step_size_rows(phase: PhaseLoads, names: Sequence[str]) -> Iterator[MetricRow]:
    """What every balancer gains with each number of tokens per step, on the number of devices of the verdict."""
    devices = phase.balance.focus
    for tokens in dict.fromkeys(phase.balance.tokens_per_step):
        if (trial := phase.trial_of_size(tokens)).halves:
            yield phase.row("test_steps", trial.test_steps, point=format_point({"tokens": tokens}))
            tops = {name: trial.tops(trial.place(name, phase.cluster(name, devices))) for name in names}
            for name, after in tops.items():
                point = format_point({"balancer": name, "devices": devices, "tokens": tokens})
                yield phase.row("avg_max_load", np.mean([top_B.mean() for top_B in after.values()]), point=point)
                if name != CONTIGUOUS.name and CONTIGUOUS.name in tops:
                    yield from gain_rows(phase, trial.gain(tops[CONTIGUOUS.name], after, rivals(names)), point)


def along_rows(phase: PhaseLoads, names: Sequence[str]) -> Iterator[MetricRow]:
    """What placements gain that are made again along the trace, if the phase has the steps."""
    clusters = {name: phase.cluster(name, phase.balance.focus) for name in names}
    yield from addressed(phase, rebalanced_values(phase.balance, clusters, phase.timeline))


def addressed(phase: PhaseLoads, values: Iterable[AddressedValue]) -> Iterator[MetricRow]:
    """The rows of these values in a phase."""
    for metric, value, address in values:
        yield phase.row(metric, value, **address)


def gain_rows(phase: PhaseLoads, found: Gain, point: str) -> Iterator[MetricRow]:
    """A gain and the ends of its interval."""
    yield from phase.rows({"load_gain": found.value, "load_gain_low": found.low, "load_gain_high": found.high}, point=point)


def all_floor_rows(phase: PhaseLoads, crosses: Mapping[tuple[str, str], Trial], devices: int) -> Iterator[MetricRow]:
    """The load of an even placement, and the floors of the phase and of each pair of domains."""
    yield phase.row("ideal_load", 1 / devices, point=format_point({"devices": devices}))
    yield from floor_rows(phase, phase.trial, devices)
    for (past, future), trial in crosses.items():
        yield from floor_rows(phase, trial, devices, domain=future, category=past)


def at(name: str, devices: int) -> str:
    """The point of a balancer and number of devices, such as `balancer=greedy;devices=8`."""
    return format_point({"balancer": name, "devices": devices})


def load_rows(phase: PhaseLoads, tops: Mapping[str, Floats], point: str, **address: str) -> Iterator[MetricRow]:
    """The busiest device's load in every layer, and over layers."""
    layers = {layer: load_values(top_B) for layer, top_B in tops.items()}
    yield from every_layer(phase, layers, point=point, **address)


def floor_rows(phase: PhaseLoads, trial: Trial, devices: int, **address: str) -> Iterator[MetricRow]:
    """The lowest load that a placement without copies can reach."""
    layers = {
        layer: {f"{name}_floor": value for name, value in load_values(floor_shares(halves.test, devices)).items()}
        for layer, halves in trial.halves.items()
    }
    yield from every_layer(phase, layers, point=format_point({"devices": devices}), **address)


def every_layer(phase: PhaseLoads, layers: Mapping[str, Values], **address: str) -> Iterator[MetricRow]:
    """The metrics of every layer, and over layers."""
    for layer, values in layers.items():
        yield from phase.rows(values, layer=layer, **address)
    if layers:
        yield from phase.rows(over_layers(list(layers.values())), **address)


def placement_rows(
    phase: PhaseLoads,
    name: str,
    devices: int,
    placements: Placed,
    tops: Mapping[str, Floats],
    before: Mapping[str, Floats],
    compared: int,
) -> Iterator[MetricRow]:
    """What one of several balancers gains, and what it costs in moved experts and traffic."""
    point = at(name, devices)
    yield from load_rows(phase, tops, point)
    yield phase.row("device_slots", phase.cluster(name, devices).num_slots, point=point)
    if before and name != CONTIGUOUS.name and not phase.totals_only:
        yield from gain_rows(phase, phase.trial.gain(before, tops, compared), point)
    if placements:
        yield from move_rows(phase, placements, point)
    if devices == phase.balance.focus <= MOST_DEVICES:
        yield from device_rows(phase, placements, point)
    if phase.choices:
        yield from phase_virtual_rows(phase, name, devices, placements)


def move_rows(phase: PhaseLoads, placements: Placed, point: str) -> Iterator[MetricRow]:
    """Experts whose weights a device must fetch, in each layer and over all."""
    trace = phase.balance.trace
    moved = {layer: num_moved(slots_DS, trace.num_experts) for layer, slots_DS in placements.items()}
    for layer, number in moved.items():
        yield phase.row("moved_experts", number, point=point, layer=layer)
    yield phase.row("moved_experts", sum(moved.values()), point=point)
    if trace.expert_bytes:
        yield phase.row("moved_bytes", sum(number * trace.expert_bytes[layer] for layer, number in moved.items()), point=point)


def device_rows(phase: PhaseLoads, placements: Placed, point: str) -> Iterator[MetricRow]:
    """The mean load of every device, as `rank`, in each layer."""
    for layer, slots_DS in placements.items():
        test = phase.trial.halves[layer].test
        mean_D = (device_counts(test, slots_DS) / test.choices_B).mean(axis=1)
        for device, load in enumerate(mean_D.tolist()):
            yield phase.row("device_load", load, point=point, layer=layer, rank=str(device))


def phase_virtual_rows(phase: PhaseLoads, name: str, devices: int, placements: Placed) -> Iterator[MetricRow]:
    """Traffic and waiting times, over the whole trace."""
    for metric, value, address in virtual_rows(phase.balance, phase.choices, placements, phase.cluster(name, devices)):
        yield phase.row(metric, value, point=at(name, devices), **address)


def drift_rows(phase: PhaseLoads) -> Iterator[MetricRow]:
    """Drift between history and test and between domains; over layers, the mean."""
    later: list[Values] = []
    for layer, halves in phase.trial.halves.items():
        later.append(drift_metrics(halves.history.counts_E, halves.test.counts_E))
        yield from phase.rows(later[-1], layer=layer, category=HALVES)
    found: dict[DomainPair, list[Values]] = {}
    for matrices in phase.layers:
        for pair, values in domain_pairs(matrices):
            found.setdefault(pair, []).append(values)
            yield from phase.rows(values, layer=matrices[0].layer, category=category_of(pair))
    for category, layers in {HALVES: later, **{category_of(pair): values for pair, values in found.items()}}.items():
        yield from phase.rows(mean_of_layers(layers), category=category)
