"""How many redundant experts are worth their memory: the load of the busiest device by number of extra slots per device.

Shape suffix: B steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.placement.choice import least, rivals
from moeprof.analysis.placement.gain import Gain
from moeprof.analysis.placement.trial import Trial, cluster_for
from moeprof.analysis.placement.virtual_parallel import AddressedValue
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS, check
from moeprof.records.arrays import Floats
from moeprof.records.errors import UsageError
from moeprof.records.metrics.point import format_point
from moeprof.records.run.replay import BalanceRequest

WORTH_MEMORY = 0.01
"""Further copies are not worth their memory if they lower avg max load by at most this fraction."""

Tops = Mapping[str, Floats]
"""The share of the busiest device in every test step, (B,) by layer."""


@dataclass(frozen=True, eq=False)
class Sized:
    """The placements with one number of extra slots."""

    replicas: int
    slots: Mapping[str, int]
    """Experts of a layer on each device, by balancer."""
    tops: Mapping[str, Tops]
    """By balancer."""

    @property
    def best(self) -> str:
        """The balancer with the least avg max load; the simplest of equal ones."""
        return least({name: mean_load(tops) for name, tops in self.tops.items()}) or ""


def mean_load(tops: Tops) -> float:
    """Avg max load, mean over layers."""
    return float(np.mean([top_B.mean() for top_B in tops.values()]))


def sized(balance: BalanceRequest, trial: Trial, names: Sequence[str], replicas: int) -> Sized:
    """The placements of the balancers that make copies with so many extra slots, of all with none; those that cannot are left out."""
    slots, tops, experts = {}, {}, balance.trace.num_experts
    for name in (name for name in names if BALANCERS[name].replicates or not replicas):
        cluster = cluster_for(name, experts, balance.focus, nodes=balance.nodes, groups=balance.groups, replicas=replicas)
        try:
            check(BALANCERS[name], experts, cluster)
        except UsageError:
            continue
        slots[name], tops[name] = cluster.num_slots, trial.tops(trial.place(name, cluster))
    return Sized(replicas, slots, tops)


def replica_values(
    balance: BalanceRequest, trial: Trial, names: Sequence[str], *, tested: bool = True
) -> Iterator[AddressedValue]:
    """Metric, value and address of every number of extra slots, and of the best balancer at each; gains only if `tested`."""
    devices = balance.focus
    contiguous = None
    if CONTIGUOUS.name in names:
        contiguous = trial.tops(trial.place(CONTIGUOUS.name, cluster_for(CONTIGUOUS.name, balance.trace.num_experts, devices)))
    found = [one for number in sorted(set(balance.replica_numbers)) if (one := sized(balance, trial, names, number)).tops]
    larger = sum(len(one.tops) for one in found[1:])
    for one in found:
        for name, tops in one.tops.items():
            at = {"point": format_point({"balancer": name, "devices": devices, "replicas": one.replicas})}
            yield "avg_max_load", mean_load(tops), at
            yield "device_slots", one.slots[name], at
            if contiguous is not None and tested:
                yield from ends("load_gain", trial.gain(contiguous, tops, rivals(names)), at)
    for before, one in zip([None, *found], found, strict=False):
        at = {"point": format_point({"devices": devices, "replicas": one.replicas}), "category": one.best}
        yield "replicas_load", mean_load(one.tops[one.best]), at
        extra = one.slots[one.best] - -(-balance.trace.num_experts // devices)
        if balance.trace.expert_bytes:
            yield "replicas_bytes", extra * devices * sum(balance.trace.expert_bytes[layer] for layer in trial.halves), at
        if before is not None and tested:
            yield from ends("replicas_gain", trial.gain(before.tops[before.best], one.tops[one.best], larger), at)


def ends(metric: str, found: Gain, at: dict[str, str]) -> Iterator[AddressedValue]:
    """A gain and the ends of its interval."""
    yield from ((f"{metric}{end}", value, at) for end, value in (("", found.value), ("_low", found.low), ("_high", found.high)))
