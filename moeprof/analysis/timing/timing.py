"""From recorded rounds to latency, throughput, speed-ups and noise."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from moeprof.analysis.comparison.output_agreement import variants_without_speedup
from moeprof.analysis.timing.intervals import median_interval
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.metrics.row import Address
from moeprof.records.run.raw_tables import ROUNDS, TIME
from moeprof.records.run.run import Run

NOISY_SPREAD = 0.10
"""An interquartile range above this share of the median marks a measurement as noisy."""


@dataclass(frozen=True)
class Timing:
    """One variant's rounds on one domain, over ranks."""

    variant: str
    domain: str
    round_ns: Sequence[int]
    steps: int
    """Forward passes of a round."""
    tokens: int
    """Tokens of a round, padding left out."""

    @property
    def latencies_ns(self) -> list[float]:
        """Nanoseconds of a step, one value per round."""
        return [elapsed / self.steps for elapsed in self.round_ns]

    @property
    def throughput(self) -> float:
        """Tokens per second of the median round."""
        return self.tokens * 1e9 / median(self.round_ns)

    @property
    def throughputs(self) -> list[float]:
        """Tokens per second, one value per round."""
        return [self.tokens * 1e9 / elapsed for elapsed in self.round_ns]


def timings_of(run: Run, pass_name: str) -> dict[tuple[str, str], list[Timing]]:
    """The rounds of one pass by phase and point; per variant and domain, in the order of recording.

    Ranks run a round together: it lasts as long as on the slowest of them, and counts the tokens of all.
    """
    grouped: dict[tuple[str, str], dict[tuple[str, str], dict[int, list[dict[str, Any]]]]] = {}
    for row in run.raw(ROUNDS).to_pylist():
        if row["pass"] == pass_name:
            by_variant = grouped.setdefault((row["phase"], row["point"]), {})
            ranks = by_variant.setdefault((row["variant"], row["domain"]), {})
            ranks.setdefault(row["rank"], []).append(row)
    return {
        where: [joint_timing(variant, domain, list(ranks.values())) for (variant, domain), ranks in by_variant.items()]
        for where, by_variant in grouped.items()
    }


def joint_timing(variant: str, domain: str, ranks: Sequence[Sequence[Mapping[str, Any]]]) -> Timing:
    """The same rounds of every rank as one."""
    round_ns = [max(row["time_ns"] for row in together) for together in zip(*ranks, strict=True)]
    return Timing(variant, domain, round_ns, ranks[0][0]["steps"], sum(rows[0]["tokens"] for rows in ranks))


def summed(timings: Sequence[Timing]) -> list[Timing]:
    """All domains together, per variant: their times added up round by round."""
    totals = []
    for variant in dict.fromkeys(timing.variant for timing in timings):
        parts = [timing for timing in timings if timing.variant == variant]
        rounds = [sum(elapsed) for elapsed in zip(*(part.round_ns for part in parts), strict=True)]
        totals.append(Timing(variant, "", rounds, sum(part.steps for part in parts), sum(part.tokens for part in parts)))
    return totals


def time_rows(run: Run) -> Iterator[Samples]:
    """Everything that follows from the rounds of the pass `time` alone."""
    for (phase, _), timings in timings_of(run, TIME).items():
        everything = [*timings, *summed(timings)]
        yield from timing_rows(run.record.workload, phase, everything)
        yield from ((row, []) for row in slowdown_rows(run.record.workload, phase, everything))


def equal_batch_rows(run: Run) -> Iterator[Samples]:
    """`speedup_equal_batch` of every variant and domain; a variant whose outputs differ from the baseline's has none."""
    for (phase, _), timings in timings_of(run, TIME).items():
        everything = [*timings, *summed(timings)]
        excluded = variants_without_speedup(run, phase)
        for domain in dict.fromkeys(timing.domain for timing in everything):
            mine = {timing.variant: timing for timing in everything if timing.domain == domain}
            at = Address(workload=run.record.workload, phase=phase, domain=domain)
            baselines = run.record.speedup_baselines
            yield from ((row, []) for row in speedup_rows("speedup_equal_batch", at, mine, baselines, excluded))


def timing_rows(workload: str, phase: str, timings: Sequence[Timing]) -> Iterator[Samples]:
    """`step_latency` and `throughput` of every variant and domain, each beside its values per round."""
    for timing in timings:
        address: Address = {"workload": workload, "phase": phase, "domain": timing.domain, "variant": timing.variant}
        yield MetricRow("step_latency", median(timing.latencies_ns), **address), timing.latencies_ns
        yield from throughput_rows("throughput", timing, address)


def throughput_rows(metric: str, timing: Timing, address: Address) -> Iterator[Samples]:
    """The throughput of the median round beside its values per round, and the ends of its 95% interval."""
    yield MetricRow(metric, timing.throughput, **address), timing.throughputs
    for row in interval_rows(metric, timing.throughputs, address):
        yield row, []


def interval_rows(metric: str, values: Sequence[float], address: Address) -> Iterator[MetricRow]:
    """`<metric>_low` and `<metric>_high`: the 95% interval of the median; nothing if the rounds are too few."""
    interval = median_interval(values)
    if interval is not None:
        yield MetricRow(f"{metric}_low", interval[0], **address)
        yield MetricRow(f"{metric}_high", interval[1], **address)


def speedup_rows(
    metric: str, address: Address, timings: Mapping[str, Timing], baselines: Sequence[str], excluded: Collection[str] = ()
) -> Iterator[MetricRow]:
    """The median over rounds of the throughput over that of every baseline (in `category`), with its interval.

    Rounds are interleaved, so that one round's ratio is free of the machine's drift. `timings` are by variant; the dense twin is
    a baseline only, and variants in `excluded` have no speed-up and are no baseline.
    """
    for variant, timing in timings.items():
        for baseline in baselines:
            if variant in (baseline, "dense", *excluded) or baseline not in timings or baseline in excluded:
                continue
            at = address | Address(variant=variant, category=baseline)
            pairs = zip(timing.throughputs, timings[baseline].throughputs, strict=True)
            ratios = [mine / its for mine, its in pairs]
            yield MetricRow(metric, median(ratios), **at)
            yield from interval_rows(metric, ratios, at)


def slowdown_rows(workload: str, phase: str, timings: Sequence[Timing]) -> Iterator[MetricRow]:
    """`slowdown_vs_dense` of every variant that has a dense twin beside it, with its interval; rounds are interleaved."""
    dense = {timing.domain: timing.latencies_ns for timing in timings if timing.variant == "dense"}
    for timing in timings:
        if timing.variant != "dense" and timing.domain in dense:
            ratios = [mine / its for mine, its in zip(timing.latencies_ns, dense[timing.domain], strict=True)]
            address: Address = {"workload": workload, "phase": phase, "domain": timing.domain, "variant": timing.variant}
            yield MetricRow("slowdown_vs_dense", median(ratios), **address)
            yield from interval_rows("slowdown_vs_dense", ratios, address)


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median; 0 for a single value."""
    if len(values) < 2:
        return 0.0
    low, _, high = quantiles(values, n=4, method="inclusive")
    return (high - low) / median(values)


def noisy_rounds(run: Run) -> list[str]:
    """Sentences about timings of the pass `time` that vary too much."""
    return [
        f"{phase}, {timing.variant}, {timing.domain}: rounds vary by {spread(timing.round_ns):.0%}"
        for (phase, _), timings in timings_of(run, TIME).items()
        for timing in timings
        if spread(timing.round_ns) > NOISY_SPREAD
    ]
