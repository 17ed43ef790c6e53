"""What offloading systems loaded, hit, skipped and foresaw, and what moved: raw records of the stores to rows of `metrics.csv`."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.run.raw_tables import MOVEMENTS, UNIT_EVENTS
from moeprof.records.run.run import Run

USED = ("hit", "foreseen", "demand")
"""Events in which an expert is computed."""

Event = Mapping[str, Any]
"""A row of the raw table `unit_events`."""


def offloading_rows(run: Run) -> Iterator[Samples]:
    """The rows of every phase and variant, over all domains and layers, and by precision."""
    found: dict[tuple[str, str], list[Event]] = {}
    for row in run.raw(UNIT_EVENTS).to_pylist():
        found.setdefault((row["phase"], row["variant"]), []).append(row)
    for (phase, variant), events in found.items():
        at = MetricRow("", 0, run.record.workload, phase, variant=variant, forced=run.record.forced)
        yield from ((row, []) for row in rows_of(at, events))
        if run.record.offloading is not None:
            waited_ns = 1e9 * total(events, "bytes", "demand") / run.record.offloading.bandwidth
            yield replace(at, metric="demand_time", value=waited_ns / run.record.offloading.steps[phase]), []


def rows_of(at: MetricRow, events: Sequence[Event]) -> Iterator[MetricRow]:
    """The metrics of one variant in one phase."""
    for precision in ("", *dict.fromkeys(event["precision"] for event in events)):
        own = replace(at, category=precision)
        mine = [event for event in events if precision in ("", event["precision"])]
        used, waited = total(mine, "count", *USED), total(mine, "count", "demand")
        yield replace(own, metric="unit_uses", value=used)
        if used:
            yield replace(own, metric="unit_hit_rate", value=(used - waited) / used)
        yield replace(own, metric="demand_bytes", value=total(mine, "bytes", "demand"))
        yield replace(own, metric="prefetch_bytes", value=total(mine, "bytes", "prefetch"))
    yield replace(at, metric="skipped_uses", value=total(events, "count", "skip"))
    yield replace(at, metric="far_uses", value=total(events, "count", "far"))
    foreseen, prefetched = total(events, "count", "foreseen"), total(events, "count", "prefetch")
    if prefetched:
        yield replace(at, metric="prefetch_precision", value=foreseen / prefetched)
        yield replace(at, metric="prefetch_recall", value=foreseen / max(foreseen + total(events, "count", "demand"), 1))


def movement_rows(run: Run) -> Iterator[Samples]:
    """The bytes that every variant moved in a phase, in all and by the tier that they came from."""
    found: Counter[tuple[str, str, str]] = Counter()
    for row in run.raw(MOVEMENTS).to_pylist():
        for tier in ("", row["tier"]):
            found[row["phase"], row["variant"], tier] += row["bytes"]
    for (phase, variant, tier), moved_bytes in found.items():
        at = MetricRow("", 0, run.record.workload, phase, variant=variant, forced=run.record.ran.forced)
        yield replace(at, metric="ledger_bytes", category=tier, value=moved_bytes), []


def total(events: Iterable[Event], column: str, *names: str) -> int:
    """The sum of a column over the events of these names."""
    return sum(event[column] for event in events if event["event"] in names)
