"""From the recorded points of the sweeps over batch sizes and slots to curves, best batches and speed-ups at them."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from moeprof.analysis.comparison.output_agreement import variants_without_speedup
from moeprof.analysis.timing.batch_search import Point, fastest, largest_fitting_batch
from moeprof.analysis.timing.stalls import all_domains, rows_of, stalls_of
from moeprof.analysis.timing.timing import Timing, speedup_rows, summed, throughput_rows, timings_of
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import Address, MetricRow, Samples
from moeprof.records.run.raw_tables import BATCHES, BEST, ENERGY, SLOTS, SWEEP
from moeprof.records.run.run import Run


def batch_rows(run: Run) -> Iterator[Samples]:
    """Throughput and memory by batch, and the best and the largest batch, of every variant."""
    points, budgets = points_of(run)
    for phase, budget in budgets.items():
        yield MetricRow("memory_budget", budget, run.record.workload, phase), []
    for (phase, variant), tried in points.items():
        address = Address(workload=run.record.workload, phase=phase, variant=variant)
        for point in tried:
            yield from ((row, []) for row in curve_rows(address | Address(point=format_point({"batch": point.batch})), point))
        yield MetricRow("max_batch", largest_fitting_batch(tried), **address), []
        best = fastest(tried)
        if best is not None:
            yield MetricRow("best_batch", best.batch, **address), []


def points_of(run: Run) -> tuple[dict[tuple[str, str], list[Point]], dict[str, int]]:
    """The batches that were tried, by phase and variant, and the budget of every phase."""
    rates = {
        (phase, timing.variant, point): timing.throughput
        for (phase, point), timings in timings_of(run, SWEEP).items()
        for timing in timings
    }
    points: dict[tuple[str, str], list[Point]] = {}
    rows: list[dict[str, Any]] = run.raw(BATCHES).to_pylist()
    for row in rows:
        phase, variant, batch = row["phase"], row["variant"], row["batch"]
        rate = rates.get((phase, variant, format_point({"batch": batch})))
        weighed = row["fits"] and rate is None
        point = Point(batch, rate if row["fits"] else None, row["memory_bytes"], row["reason"], weighed=weighed)
        points.setdefault((phase, variant), []).append(point)
    return points, {row["phase"]: row["budget_bytes"] for row in rows}


def curve_rows(at: Address, point: Point) -> Iterator[MetricRow]:
    """One point of the curves."""
    yield MetricRow("fits", point.fits, **at)
    if point.throughput is not None:
        yield MetricRow("throughput", point.throughput, **at)
    if point.memory_bytes is not None:
        yield MetricRow("memory_total_peak", point.memory_bytes, **at)


def best_batch_rows(run: Run) -> Iterator[Samples]:
    """`max_throughput` of every variant, at its own best batch."""
    for phase, timings in best_timings_of(run).items():
        for label, timing in timings.items():
            address = Address(workload=run.record.workload, phase=phase, variant=label)
            yield from throughput_rows("max_throughput", timing, address)


def best_batch_speedup_rows(run: Run) -> Iterator[Samples]:
    """`speedup_max_throughput` of every variant; one whose outputs differ from the baseline's has none."""
    for phase, timings in best_timings_of(run).items():
        address, excluded = Address(workload=run.record.workload, phase=phase), variants_without_speedup(run, phase)
        rows = speedup_rows("speedup_max_throughput", address, timings, run.record.speedup_baselines, excluded)
        yield from ((row, []) for row in rows)


def best_timings_of(run: Run) -> dict[str, dict[str, Timing]]:
    """The rounds at the best batches, by phase and variant."""
    found: dict[str, dict[str, Timing]] = {}
    for (phase, _), timings in timings_of(run, BEST).items():
        found.setdefault(phase, {}).update({timing.variant: timing for timing in timings})
    return found


def slot_rows(run: Run) -> Iterator[Samples]:
    """Throughput, latency, stalls and energy of all domains together, at every number of slots."""
    stalls = stalls_of(run, SLOTS)
    for (phase, point), timings in timings_of(run, SLOTS).items():
        for whole in summed(timings):
            at = MetricRow("throughput", whole.throughput, run.record.workload, phase, variant=whole.variant, point=point)
            yield at, whole.throughputs
            yield replace(at, metric="step_latency", value=median(whole.latencies_ns)), whole.latencies_ns
            domains = stalls.get((phase, whole.variant, point), [])
            yield from (found for found in rows_of(at, all_domains(domains)) if not found[0].layer) if domains else ()
    for row in run.raw(ENERGY).to_pylist():
        if row["rank"] == 0:
            at = MetricRow("energy", row["energy_mj"] / row["tokens"], run.record.workload, row["phase"])
            yield replace(at, variant=row["variant"], point=row["point"]), []
