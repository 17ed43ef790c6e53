"""The paper's protocol for placements (6.4): the first half of a trace makes the placement, the second half tests it.

Shape suffixes: B steps, D devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from moeprof.analysis.placement.device_load import history_of, top_shares
from moeprof.analysis.placement.gain import Gain, gain
from moeprof.analysis.routing.load_matrix import LoadMatrix, pooled
from moeprof.policies.balancing.balancer import Cluster, History, Slots
from moeprof.policies.balancing.registry import find_balancer, placed
from moeprof.records.arrays import Floats

Placed = Mapping[str, Slots]
"""The experts on every device, (D, S), by layer."""


@dataclass(frozen=True, eq=False)
class Halves:
    """The steps of one layer: a history to place by, and a test."""

    history: LoadMatrix
    test: LoadMatrix


def part_of(matrix: LoadMatrix, first: int, last: int) -> LoadMatrix:
    """The columns `first` to `last - 1`."""
    low, high = np.searchsorted(matrix.column_N, (first, last))
    steps, cells = slice(first, last), slice(int(low), int(high))
    return replace(
        matrix,
        steps_B=matrix.steps_B[steps],
        tokens_B=matrix.tokens_B[steps],
        dropped_tokens_B=matrix.dropped_tokens_B[steps],
        dropped_KB=matrix.dropped_KB[:, steps],
        column_N=matrix.column_N[cells] - first,
        expert_N=matrix.expert_N[cells],
        count_WN=matrix.count_WN[:, cells],
        dropped_WN=matrix.dropped_WN[:, cells],
    )


def halved(matrix: LoadMatrix, start: int | None = None) -> Halves | None:
    """The earlier and the later half of the steps, an odd one in the test; with `start`, the steps before it and from it on.

    None if one of the halves is empty, as with a single step.
    """
    middle = matrix.num_steps // 2 if start is None else int(np.searchsorted(matrix.steps_B, start))
    if not 0 < middle < matrix.num_steps:
        return None
    return Halves(part_of(matrix, 0, middle), part_of(matrix, middle, matrix.num_steps))


def whole(matrices: Sequence[LoadMatrix], starts: Mapping[str, int] | None = None) -> Halves | None:
    """The halves of one layer over its domains: each domain is halved by itself, because domains follow each other in a trace.

    `starts` gives the first test step of each domain, if it is not the middle one.
    """
    found = [halves for matrix in matrices if (halves := halved(matrix, starts[matrix.domain] if starts else None))]
    return Halves(pooled([one.history for one in found]), pooled([one.test for one in found])) if found else None


def crossed(matrices: Sequence[LoadMatrix]) -> dict[tuple[str, str], Halves]:
    """Halves by (domain of the history, domain of the test), if a layer has several; a domain of one step serves as both halves."""
    if len(matrices) < 2:
        return {}
    own = {matrix.domain: halved(matrix) or Halves(matrix, matrix) for matrix in matrices}
    single = {matrix.domain for matrix in matrices if matrix.num_steps < 2}
    return {
        (past, future): Halves(own[past].history, own[future].test)
        for past in own
        for future in own
        if past != future or past not in single
    }


@dataclass(frozen=True, eq=False)
class Trial:
    """The layers that have both a history and a test."""

    halves: Mapping[str, Halves]
    """The halves of each layer."""

    @cached_property
    def histories(self) -> dict[str, History]:
        """The history of each layer, as balancers read it."""
        return {layer: history_of(halves.history) for layer, halves in self.halves.items()}

    def place(self, name: str, cluster: Cluster) -> Placed:
        """A placement of each layer by its history; UsageError if the balancer cannot place experts on this cluster."""
        return {layer: placed(name, history, cluster) for layer, history in self.histories.items()}

    def tops(self, placements: Placed) -> dict[str, Floats]:
        """Share of the busiest device in every test step, (B,) by layer."""
        return {layer: top_shares(self.halves[layer].test, slots_DS) for layer, slots_DS in placements.items()}

    def gain(self, before: Mapping[str, Floats], after: Mapping[str, Floats], compared: int = 1) -> Gain:
        """The gain of the placement `after` over `before`, from their busiest devices' shares; one of so many gains that are compared."""
        steps = [halves.test.steps_B for halves in self.halves.values()]
        return gain(steps, [before[layer] for layer in self.halves], [after[layer] for layer in self.halves], compared=compared)

    @property
    def history_steps(self) -> int:
        """The number of distinct history steps over all layers."""
        return len(np.unique(np.concatenate([halves.history.steps_B for halves in self.halves.values()])))

    @property
    def test_steps(self) -> int:
        """The number of distinct test steps over all layers."""
        return len(np.unique(np.concatenate([halves.test.steps_B for halves in self.halves.values()])))

    @property
    def step_tokens(self) -> float:
        """Tokens of a test step, mean over steps and layers."""
        return float(np.mean([halves.test.tokens_B.mean() for halves in self.halves.values()]))


def trial_of(layers: Sequence[Sequence[LoadMatrix]], starts: Mapping[str, int] | None = None) -> Trial:
    """The trial of a phase, halved in the middle or at each domain's step in `starts`; layers with a single step are left out."""
    return Trial({matrices[0].layer: halves for matrices in layers if (halves := whole(matrices, starts))})


def totals_trial(layers: Sequence[Sequence[LoadMatrix]]) -> Trial:
    """The trial in which the loads of each layer are history and test at once: what a placement makes of loads that it knows."""
    return Trial({matrices[0].layer: Halves(pooled(matrices), pooled(matrices)) for matrices in layers})


def crossed_trials(layers: Sequence[Sequence[LoadMatrix]]) -> dict[tuple[str, str], Trial]:
    """Trials by (domain of the history, domain of the test), if there are several domains."""
    found: dict[tuple[str, str], dict[str, Halves]] = {}
    for matrices in layers:
        for pair, halves in crossed(matrices).items():
            found.setdefault(pair, {})[matrices[0].layer] = halves
    return {pair: Trial(halves) for pair, halves in found.items()}


def cluster_for(
    name: str, num_experts: int, num_devices: int, *, nodes: int = 1, groups: int = 0, replicas: int = 0
) -> Cluster:
    """Devices with an equal share of the experts each, and `replicas` more physical experts if the balancer replicates.

    `groups` of neighbouring experts stay on one node each if the balancer places node by node.

    A balancer that never places an expert twice on a device gets at most as many as there are experts.
    """
    balancer = find_balancer(name)
    slots = -(-num_experts // num_devices) + (replicas if balancer.replicates else 0)
    return Cluster(
        num_devices, slots if balancer.repeats else min(slots, num_experts), nodes, groups if balancer.by_node else 0
    )


def num_moved(slots_DS: Slots, num_experts: int) -> int:
    """The number of experts that devices must fetch from contiguous placement (E / D neighbours on each).

    Copies of an expert on several devices count once for each, and those on one device once together.
    """
    num_devices = len(slots_DS)
    pairs_P = np.unique(slots_DS * num_devices + np.arange(num_devices)[:, None])
    expert_P, device_P = np.divmod(pairs_P, num_devices)
    return int((expert_P * num_devices // num_experts != device_P).sum())
