"""From raw times to latency, throughput and how much to trust them."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

from moeprof.analysis.timing.intervals import median_interval
from moeprof.records.metrics.registry import Address, MetricRow

NOISY_SPREAD = 0.10
"""An interquartile range above this share of the median marks a measurement as noisy."""


@dataclass(frozen=True)
class Timing:
    """One contender's rounds on one domain."""

    variant: str
    domain: str
    round_ns: Sequence[int]
    steps: int
    """Forward passes of a round."""
    tokens: int
    """Tokens of a round, padding left out."""

    @property
    def latencies_ns(self) -> list[float]:
        """Of a step, one value per round."""
        return [elapsed / self.steps for elapsed in self.round_ns]

    @property
    def throughput(self) -> float:
        """Tokens per second of the median round."""
        return self.tokens * 1e9 / median(self.round_ns)

    @property
    def throughputs(self) -> list[float]:
        """Tokens per second, one value per round."""
        return [self.tokens * 1e9 / elapsed for elapsed in self.round_ns]


def summed(timings: Sequence[Timing]) -> list[Timing]:
    """Per variant, all domains together: round by round their times added up."""
    totals = []
    for variant in dict.fromkeys(timing.variant for timing in timings):
        parts = [timing for timing in timings if timing.variant == variant]
        rounds = [sum(elapsed) for elapsed in zip(*(part.round_ns for part in parts), strict=True)]
        totals.append(Timing(variant, "", rounds, sum(part.steps for part in parts), sum(part.tokens for part in parts)))
    return totals


def timing_rows(workload: str, phase: str, timings: Sequence[Timing]) -> Iterator[tuple[MetricRow, list[float]]]:
    """`step_latency` and `throughput` of every contender and domain, each beside its raw values."""
    for timing in [*timings, *(summed(timings) if len(timings) > 1 else [])]:
        address: Address = {"workload": workload, "phase": phase, "domain": timing.domain, "variant": timing.variant}
        yield MetricRow("step_latency", median(timing.latencies_ns), **address), timing.latencies_ns
        yield from throughput_rows("throughput", timing, address)


def throughput_rows(metric: str, timing: Timing, address: Address) -> Iterator[tuple[MetricRow, list[float]]]:
    """The throughput of the median round beside its raw values, and the ends of its 95% interval."""
    yield MetricRow(metric, timing.throughput, **address), timing.throughputs
    for row in interval_rows(metric, timing.throughputs, address):
        yield row, []


def interval_rows(metric: str, values: Sequence[float], address: Address) -> Iterator[MetricRow]:
    """`<metric>_low` and `<metric>_high`: the 95% interval of the median; nothing where the rounds are too few."""
    interval = median_interval(values)
    if interval is not None:
        yield MetricRow(f"{metric}_low", interval[0], **address)
        yield MetricRow(f"{metric}_high", interval[1], **address)


def speedup_rows(
    metric: str, address: Address, timings: Mapping[str, Timing], against: Sequence[str], untold: Collection[str] = ()
) -> Iterator[MetricRow]:
    """Median over rounds of the throughput over that of every baseline in `against` (in `category`), with its interval.

    Rounds ran in turns, so that one round's ratio is free of the machine's drift. `timings` are by variant; the dense twin is
    a baseline only, and of `untold` nothing is said.
    """
    for variant, timing in timings.items():
        for baseline in against:
            if variant in (baseline, "dense", *untold) or baseline not in timings or baseline in untold:
                continue
            at = address | Address(variant=variant, category=baseline)
            pairs = zip(timing.throughputs, timings[baseline].throughputs, strict=True)
            ratios = [mine / its for mine, its in pairs]
            yield MetricRow(metric, median(ratios), **at)
            yield from interval_rows(metric, ratios, at)


def slowdown_rows(workload: str, phase: str, timings: Sequence[Timing]) -> Iterator[MetricRow]:
    """`slowdown_vs_dense` of every contender that has a dense twin beside it."""
    everything = [*timings, *summed(timings)]
    dense = {timing.domain: median(timing.latencies_ns) for timing in everything if timing.variant == "dense"}
    for timing in everything:
        if timing.variant != "dense" and timing.domain in dense:
            ratio = median(timing.latencies_ns) / dense[timing.domain]
            address: Address = {"workload": workload, "phase": phase, "domain": timing.domain, "variant": timing.variant}
            yield MetricRow("slowdown_vs_dense", ratio, **address)


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


def noisy(phase: str, timings: Sequence[Timing]) -> list[str]:
    """Sentences about measurements that vary too much."""
    return [
        f"{phase}, {timing.variant}, {timing.domain or 'all'}: rounds vary by {spread(timing.round_ns):.0%}"
        for timing in timings
        if spread(timing.round_ns) > NOISY_SPREAD
    ]
