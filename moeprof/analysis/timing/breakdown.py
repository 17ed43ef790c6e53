"""From the time of every region to its share of the step, what dominates, and what would move it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from moeprof.records.metrics.registry import Address, MetricRow
from moeprof.records.regions import REGIONS, RegionKey

Samples = tuple[MetricRow, list[float]]
"""A row beside the raw values that it stands for."""


@dataclass(frozen=True)
class Breakdown:
    """One contender's observed rounds on one domain."""

    variant: str
    domain: str
    rounds: Sequence[Mapping[RegionKey, int]]
    """Nanoseconds per region and layer, `other` included: they add up to the round."""
    steps: int
    """Forward passes of a round."""

    @property
    def keys(self) -> list[RegionKey]:
        """In the order of the regions, and within a region in the order of execution."""
        found = dict.fromkeys(key for times in self.rounds for key in times)
        return sorted(found, key=lambda key: REGIONS.index(key[0]))

    def layer_ns(self, key: RegionKey) -> list[float]:
        """Of a step, one value per round."""
        return [times.get(key, 0) / self.steps for times in self.rounds]

    def region_ns(self, region: str) -> list[float]:
        """Of a step over all layers, one value per round."""
        return [sum(ns for (name, _), ns in times.items() if name == region) / self.steps for times in self.rounds]

    def medians_ns(self) -> dict[str, float]:
        """Of every region over all layers."""
        return {region: median(self.region_ns(region)) for region in dict.fromkeys(region for region, _ in self.keys)}


def summed(breakdowns: Sequence[Breakdown]) -> list[Breakdown]:
    """Per variant, all domains together: round by round their times added up."""
    totals = []
    for variant in dict.fromkeys(breakdown.variant for breakdown in breakdowns):
        parts = [breakdown for breakdown in breakdowns if breakdown.variant == variant]
        rounds = [added(times) for times in zip(*(part.rounds for part in parts), strict=True)]
        totals.append(Breakdown(variant, "", rounds, sum(part.steps for part in parts)))
    return totals


def added(parts: Sequence[Mapping[RegionKey, int]]) -> dict[RegionKey, int]:
    """Key by key."""
    return {key: sum(part.get(key, 0) for part in parts) for key in dict.fromkeys(key for part in parts for key in part)}


def averaged(ranks: Sequence[Breakdown]) -> Breakdown:
    """Over ranks, round by round: the mean, so that regions still add up to a round."""
    rounds = [
        {key: round(ns / len(ranks)) for key, ns in added(times).items()}
        for times in zip(*(one.rounds for one in ranks), strict=True)
    ]
    return replace(ranks[0], rounds=rounds)


def shares(times: Mapping[str, float]) -> dict[str, float]:
    """Each region's fraction of all of them; {} where nothing took any time."""
    whole = sum(times.values())
    return {region: time / whole for region, time in times.items()} if whole else {}


def breakdown_rows(workload: str, phase: str, breakdowns: Sequence[Breakdown]) -> Iterator[Samples]:
    """`region_time` per layer and over layers, and `region_share`; raw values stand beside the times over layers."""
    for breakdown in [*breakdowns, *(summed(breakdowns) if len(breakdowns) > len(summed(breakdowns)) else [])]:
        address: Address = {"workload": workload, "phase": phase, "domain": breakdown.domain, "variant": breakdown.variant}
        for region, layer in breakdown.keys:
            if layer:
                time = median(breakdown.layer_ns((region, layer)))
                yield MetricRow("region_time", time, **(address | {"region": region, "layer": layer})), []
        times = breakdown.medians_ns()
        for region, time in times.items():
            yield MetricRow("region_time", time, **(address | {"region": region})), breakdown.region_ns(region)
        for region, share in shares(times).items():
            yield MetricRow("region_share", share, **(address | {"region": region})), []


def overhead_row(
    workload: str, phase: str, variant: str, instrument: str, observed: Sequence[float], unobserved: Sequence[float]
) -> Samples:
    """`overhead`: median observed round over median unobserved round; beside it the ratio of every pair of rounds."""
    ratio = median(observed) / median(unobserved)
    pairs = [one / other for one, other in zip(observed, unobserved, strict=True)]
    return MetricRow("overhead", ratio, workload=workload, phase=phase, variant=variant, category=instrument), pairs
