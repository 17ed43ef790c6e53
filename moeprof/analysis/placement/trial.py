"""Placements made from histories of all layers, and what the test steps say of them (paper 6.4).

Shape suffixes: B steps, D devices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from moeprof.analysis.placement.device_load import history_of, top_shares
from moeprof.analysis.placement.gain import Gain, gain
from moeprof.analysis.placement.halves import Halves, crossed, whole
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.policies.balancing.balancer import Cluster, History, Slots
from moeprof.policies.balancing.registry import find_balancer, placed
from moeprof.records.arrays import Floats

Placed = Mapping[str, Slots]
"""By layer."""


@dataclass(frozen=True, eq=False)
class Trial:
    """Layers with something to place by and something to be judged on."""

    halves: Mapping[str, Halves]
    """By layer."""

    @cached_property
    def histories(self) -> dict[str, History]:
        """By layer."""
        return {layer: history_of(halves.history) for layer, halves in self.halves.items()}

    def place(self, name: str, cluster: Cluster) -> Placed:
        """UsageError where the balancer cannot place experts on this cluster."""
        return {layer: placed(name, history, cluster) for layer, history in self.histories.items()}

    def tops(self, placements: Placed) -> dict[str, Floats]:
        """Share of the busiest device in every test step, (B,) by layer."""
        return {layer: top_shares(self.halves[layer].test, slots_DS) for layer, slots_DS in placements.items()}

    def gain(self, before: Mapping[str, Floats], after: Mapping[str, Floats]) -> Gain:
        """Of one placement's busiest devices over another's."""
        steps = [halves.test.steps_B for halves in self.halves.values()]
        return gain(steps, [before[layer] for layer in self.halves], [after[layer] for layer in self.halves])

    @property
    def history_steps(self) -> int:
        """Different steps over all layers."""
        return len(np.unique(np.concatenate([halves.history.steps_B for halves in self.halves.values()])))

    @property
    def test_steps(self) -> int:
        """The same of the test."""
        return len(np.unique(np.concatenate([halves.test.steps_B for halves in self.halves.values()])))


def trial_of(layers: Sequence[Sequence[LoadMatrix]], starts: Mapping[str, int] | None = None) -> Trial:
    """A phase's halves, or what lies before and from each domain's step in `starts`; a layer of a single step has none."""
    return Trial({matrices[0].layer: halves for matrices in layers if (halves := whole(matrices, starts))})


def crossed_trials(layers: Sequence[Sequence[LoadMatrix]]) -> dict[tuple[str, str], Trial]:
    """By domain of the history and of the test, where there are several."""
    found: dict[tuple[str, str], dict[str, Halves]] = {}
    for matrices in layers:
        for pair, halves in crossed(matrices).items():
            found.setdefault(pair, {})[matrices[0].layer] = halves
    return {pair: Trial(halves) for pair, halves in found.items()}


def cluster_for(name: str, num_experts: int, num_devices: int, *, nodes: int = 1, replicas: int = 0) -> Cluster:
    """Devices with an equal share of the experts each, and `replicas` slots more where the balancer can fill them.

    A balancer that puts no copy beside a copy gets no more slots than there are experts.
    """
    balancer = find_balancer(name)
    slots = -(-num_experts // num_devices) + (replicas if balancer.replicates else 0)
    return Cluster(num_devices, slots if balancer.repeats else min(slots, num_experts), nodes)


def num_moved(slots_DS: Slots, num_experts: int) -> int:
    """Slots whose expert contiguous placement, E / D neighbours on each device, has on another device."""
    home_DS = slots_DS * len(slots_DS) // num_experts
    return int((home_DS != np.arange(len(slots_DS))[:, None]).sum())
