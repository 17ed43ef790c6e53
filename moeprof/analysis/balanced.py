"""A replay of placements as its run directory tells it: every number by phase, balancer and number of devices."""

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from moeprof.analysis.placement.gain import Gain
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.policies.balancing.registry import BALANCERS
from moeprof.records.metrics.point import parse_point
from moeprof.records.run.replay import ALL, DECODE, BalanceRequest
from moeprof.records.run.run import Run

Key = tuple[str, str, str, int, str, str, str, str]
"""Metric, phase, balancer, devices, layer, domain, category, rank; devices 0 where a number has none."""


@dataclass(frozen=True)
class Balanced:
    """What was replayed, and what came of it."""

    balance: BalanceRequest
    values: dict[Key, float]

    @classmethod
    def of(cls, run: Run) -> "Balanced":
        """Read once."""
        table = run.metrics
        columns = (table[name] for name in ("metric", "phase", "point", "layer", "domain", "category", "rank", "value"))
        values = {}
        for metric, phase, point, layer, domain, category, rank, value in zip(*columns, strict=True):
            swept = parse_point(point)
            number = swept.get("devices", "0")
            devices = int(number) if number.isdecimal() else 0
            values[metric, phase, swept.get("balancer", ""), devices, layer, domain, category, rank] = float(value)
        return cls(run.record.balanced, values)

    def get(
        self,
        metric: str,
        phase: str,
        balancer: str = "",
        devices: int = 0,
        *,
        layer: str = "",
        domain: str = "",
        category: str = "",
        rank: str = "",
    ) -> float | None:
        """The number, or None where the run has none."""
        return self.values.get((metric, phase, balancer, devices, layer, domain, category, rank))

    @cached_property
    def phases(self) -> list[str]:
        """Those that have loads: decode before prefill."""
        known = {key[1] for key in self.values if key[0] == "avg_max_load"}
        return [phase for phase in (DECODE, *sorted(known - {DECODE, ALL}), ALL) if phase in known]

    def balancers(self, phase: str, devices: int) -> list[str]:
        """Those that have loads on so many devices, in the order in which they were asked for."""
        known = {key[2] for key in self.values if key[0] == "avg_max_load" and key[1] == phase and key[3] == devices}
        return [name for name in self.balance.balancers if name in known]

    def layers(self, phase: str) -> list[str]:
        """Those that have loads, in the order of execution."""
        known = {key[4] for key in self.values if key[0] == "avg_max_load" and key[1] == phase}
        return [layer for layer in self.balance.trace.layers if layer in known]

    def crosses(self, phase: str) -> list[tuple[str, str]]:
        """(domain of the history, domain of the test), where there are several."""
        return list(
            dict.fromkeys((key[6], key[5]) for key in self.values if key[0] == "avg_max_load" and key[1] == phase and key[5])
        )

    def drifts(self, phase: str) -> list[str]:
        """Pairs of loads that drift was computed of."""
        return list(dict.fromkeys(key[6] for key in self.values if key[0] == "load_divergence" and key[1] == phase))

    def gain(self, phase: str, balancer: str, devices: int) -> Gain | None:
        """As it was recorded; None where nothing was judged, or there is nothing to hold it against."""
        ends = [self.get(f"load_gain{end}", phase, balancer, devices) for end in ("", "_low", "_high")]
        steps = self.get("test_steps", phase)
        value, low, high = ends
        return None if value is None or low is None or high is None or steps is None else Gain(value, low, high, int(steps))

    def best(self, phase: str, devices: int, *, copies: bool) -> tuple[str, Gain] | None:
        """The balancer that makes copies, or none, and whose gain is largest; of equal gains the one asked for first."""
        found = [
            (name, gain)
            for name in self.balancers(phase, devices)
            if name != CONTIGUOUS.name
            and BALANCERS[name].replicates == copies
            and (gain := self.gain(phase, name, devices)) is not None
        ]
        return max(found, key=lambda pair: pair[1].value, default=None)

    def elsewhere(self, phase: str, balancer: str, devices: int) -> float | None:
        """Avg max load where one domain places and another one is judged, mean over pairs; None where there are none."""
        pairs = [pair for pair in self.crosses(phase) if pair[0] != pair[1]]
        loads = [self.get("avg_max_load", phase, balancer, devices, domain=future, category=past) for past, future in pairs]
        known = [load for load in loads if load is not None]
        return fmean(known) if known else None

    def best_elsewhere(self, phase: str, devices: int, *, copies: bool) -> str | None:
        """The balancer that makes copies, or none, and is best by that; of equal ones the one asked for first."""
        means = {
            name: mean
            for name in self.balancers(phase, devices)
            if name != CONTIGUOUS.name
            and BALANCERS[name].replicates == copies
            and (mean := self.elsewhere(phase, name, devices)) is not None
        }
        return min(means, key=lambda name: means[name], default=None)
