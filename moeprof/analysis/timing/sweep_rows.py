"""From the recorded points of the sweeps over batch sizes and slots to curves, best batches and speed-ups at them."""

from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

from moeprof.analysis.comparison.output_agreement import variants_without_speedup
from moeprof.analysis.timing.stalls import all_domains, rows_of, stalls_of
from moeprof.analysis.timing.timing import Timing, speedup_rows, summed, throughput_rows, timings_of
from moeprof.records.metrics.point import format_point, parse_point
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.metrics.row import Address
from moeprof.records.run.raw_tables import BATCHES, BEST, ENERGY, SLOTS, SWEEP
from moeprof.records.run.run import Run


def batch_rows(run: Run) -> Iterator[Samples]:
    """The budget of every phase, what every batch needs and whether that fits, and the largest batch that does."""
    tried: list[dict[str, Any]] = run.raw(BATCHES).to_pylist()
    for phase, budget in {row["phase"]: row["budget_bytes"] for row in tried}.items():
        yield MetricRow("memory_budget", budget, run.record.workload, phase), []
    largest: dict[tuple[str, str], int] = {}
    for row in tried:
        phase, variant, batch = row["phase"], row["variant"], row["batch"]
        at = MetricRow("fits", row["fits"], run.record.workload, phase, variant=variant, point=format_point({"batch": batch}))
        yield at, []
        if row["memory_bytes"] is not None:
            yield replace(at, metric="memory_total_peak", value=row["memory_bytes"]), []
        largest[phase, variant] = max(largest.get((phase, variant), 0), batch if row["fits"] else 0)
    for (phase, variant), batch in largest.items():
        yield MetricRow("max_batch", batch, run.record.workload, phase, variant=variant), []


def batch_throughput_rows(run: Run) -> Iterator[Samples]:
    """The throughput at every batch that was timed, in ascending order, and the batch that the search found best."""
    chosen = {
        (phase, timing.variant): int(parse_point(point)["batch"])
        for (phase, point), timings in timings_of(run, BEST).items()
        for timing in timings
    }
    curves: dict[tuple[str, str], dict[int, float]] = {}
    for (phase, point), timings in timings_of(run, SWEEP).items():
        for timing in timings:
            curves.setdefault((phase, timing.variant), {})[int(parse_point(point)["batch"])] = timing.throughput
    for (phase, variant), curve in curves.items():
        at = MetricRow("best_batch", 0, run.record.workload, phase, variant=variant)
        for batch, throughput in sorted(curve.items()):
            yield replace(at, metric="throughput", value=throughput, point=format_point({"batch": batch})), []
        yield replace(at, value=chosen.get((phase, variant)) or max(sorted(curve), key=lambda batch: curve[batch])), []


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
