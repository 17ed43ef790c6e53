"""From the time of every region to its share of the step, and what dominates it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

from moeprof.analysis.timing import timing
from moeprof.analysis.timing.timing import Timing, timings_of
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.metrics.row import Address
from moeprof.records.regions import REGIONS, RegionKey
from moeprof.records.run.raw_tables import BREAKDOWN, OBSERVED
from moeprof.records.run.raw_tables import REGIONS as REGION_TIMES
from moeprof.records.run.run import Run

INSTRUMENT = "breakdown"
"""The category of the pass's own `overhead`."""


@dataclass(frozen=True)
class Breakdown:
    """One variant's observed rounds on one domain."""

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
        """Nanoseconds of a step, one value per round."""
        return [times.get(key, 0) / self.steps for times in self.rounds]

    def region_ns(self, region: str) -> list[float]:
        """Nanoseconds of a step over all layers, one value per round."""
        return [sum(ns for (name, _), ns in times.items() if name == region) / self.steps for times in self.rounds]

    def medians_ns(self) -> dict[str, float]:
        """The median over rounds of every region, over all layers."""
        return {region: median(self.region_ns(region)) for region in dict.fromkeys(region for region, _ in self.keys)}


def breakdowns_of(run: Run, phase: str) -> dict[int, list[Breakdown]]:
    """By rank: the observed rounds of every variant and domain."""
    steps = {(one.variant, one.domain): one.steps for one in timings_of(run, OBSERVED).get((phase, ""), [])}
    found: dict[tuple[int, str, str], dict[int, dict[RegionKey, int]]] = {}
    for row in run.raw(REGION_TIMES).to_pylist():
        if row["phase"] == phase:
            rounds = found.setdefault((row["rank"], row["variant"], row["domain"]), {})
            rounds.setdefault(row["round"], {})[row["region"], row["layer"]] = row["time_ns"]
    ranks: dict[int, list[Breakdown]] = {}
    for (rank, variant, domain), rounds in found.items():
        ranks.setdefault(rank, []).append(Breakdown(variant, domain, list(rounds.values()), steps[variant, domain]))
    return ranks


def region_rows(run: Run) -> Iterator[Samples]:
    """Everything that follows from the pass `breakdown`, over ranks and, if there are several, of each."""
    workload = run.record.workload
    for phase in run.record.ran.phases:
        ranks = breakdowns_of(run, phase)
        if ranks:
            yield from breakdown_rows(workload, phase, [averaged(parts) for parts in zip(*ranks.values(), strict=True)])
        for rank, mine in ranks.items() if len(ranks) > 1 else ():
            for row, values in breakdown_rows(workload, phase, mine):
                yield replace(row, rank=str(rank)), values
        yield from overhead_rows(run, phase)


def summed(breakdowns: Sequence[Breakdown]) -> list[Breakdown]:
    """All domains together, per variant: their times added up round by round."""
    totals = []
    for variant in dict.fromkeys(breakdown.variant for breakdown in breakdowns):
        parts = [breakdown for breakdown in breakdowns if breakdown.variant == variant]
        rounds = [added(times) for times in zip(*(part.rounds for part in parts), strict=True)]
        totals.append(Breakdown(variant, "", rounds, sum(part.steps for part in parts)))
    return totals


def added(parts: Sequence[Mapping[RegionKey, int]]) -> dict[RegionKey, int]:
    """The sum of several rounds, key by key."""
    return {key: sum(part.get(key, 0) for part in parts) for key in dict.fromkeys(key for part in parts for key in part)}


def averaged(ranks: Sequence[Breakdown]) -> Breakdown:
    """The mean over ranks, round by round, so that regions still add up to a round."""
    rounds = [
        {key: round(ns / len(ranks)) for key, ns in added(times).items()}
        for times in zip(*(one.rounds for one in ranks), strict=True)
    ]
    return replace(ranks[0], rounds=rounds)


def shares(times: Mapping[str, float]) -> dict[str, float]:
    """Each region's fraction of all of them; {} if nothing took any time."""
    whole = sum(times.values())
    return {region: time / whole for region, time in times.items()} if whole else {}


def breakdown_rows(workload: str, phase: str, breakdowns: Sequence[Breakdown]) -> Iterator[Samples]:
    """`region_time` per layer and over layers, each beside its values per round, and `region_share`."""
    for breakdown in [*breakdowns, *summed(breakdowns)]:
        address = Address(workload=workload, phase=phase, domain=breakdown.domain, variant=breakdown.variant)
        for region, layer in breakdown.keys:
            if layer:
                times_ns = breakdown.layer_ns((region, layer))
                yield MetricRow("region_time", median(times_ns), **(address | {"region": region, "layer": layer})), []
        times = breakdown.medians_ns()
        for region, time in times.items():
            yield MetricRow("region_time", time, **(address | {"region": region})), breakdown.region_ns(region)
        for region, share in shares(times).items():
            yield MetricRow("region_share", share, **(address | {"region": region})), []


def overhead_rows(run: Run, phase: str) -> Iterator[Samples]:
    """`overhead` per variant, all domains together: median observed round over median unobserved round."""
    unobserved = {one.variant: one.round_ns for one in summed_timings(run, BREAKDOWN, phase)}
    for one in summed_timings(run, OBSERVED, phase):
        mine = unobserved[one.variant]
        ratio = median(one.round_ns) / median(mine)
        pairs = [observed / other for observed, other in zip(one.round_ns, mine, strict=True)]
        yield MetricRow("overhead", ratio, run.record.workload, phase, variant=one.variant, category=INSTRUMENT), pairs


def summed_timings(run: Run, pass_name: str, phase: str) -> list[Timing]:
    """The rounds of a pass, all domains together, per variant."""
    return timing.summed(timings_of(run, pass_name).get((phase, ""), []))
