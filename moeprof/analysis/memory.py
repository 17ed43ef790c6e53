"""From the recorded footprints of the pass `memory` to peaks, over ranks and of each."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from moeprof.analysis.imbalance import imbalance_rows
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.run.raw_tables import FOOTPRINTS
from moeprof.records.run.run import Run

Sizes = Mapping[tuple[str, str], int]
"""Bytes of one variant on one rank, by measure and name."""


def footprints_of(run: Run) -> dict[str, dict[int, dict[str, dict[tuple[str, str], int]]]]:
    """By phase, rank and variant."""
    found: dict[str, dict[int, dict[str, dict[tuple[str, str], int]]]] = {}
    for row in run.raw(FOOTPRINTS).to_pylist():
        sizes = found.setdefault(row["phase"], {}).setdefault(row["rank"], {}).setdefault(row["variant"], {})
        sizes[row["measure"], row["name"]] = row["bytes"]
    return found


def memory_rows(run: Run) -> Iterator[Samples]:
    """The peaks of the rank that needs most and, if there are several, of each rank, and how uneven they are."""
    workload, forced = run.record.workload, run.record.ran.forced
    for phase, ranks in footprints_of(run).items():
        variants = list(next(iter(ranks.values())))
        worst = {name: max((mine[name] for mine in ranks.values()), key=total) for name in variants}
        rows = list(peak_rows(workload, phase, worst, forced=forced))
        of_ranks = [
            replace(row, rank=str(rank))
            for rank, mine in (ranks.items() if len(ranks) > 1 else ())
            for row in peak_rows(workload, phase, mine, forced=forced)
        ]
        totals = [row for row in of_ranks if row.metric == "memory_total_peak" and row.variant != "dense"]
        yield from ((row, []) for row in [*rows, *of_ranks, *imbalance_rows("rank_memory_max_over_mean", totals)])


def total(sizes: Sizes) -> int:
    """The parameters and the peak of the rest, bytes."""
    return sizes["static", ""] + sizes["dynamic", ""]


def peak_rows(workload: str, phase: str, variants: Mapping[str, Sizes], *, forced: bool) -> Iterator[MetricRow]:
    """The peaks of every variant, in all, by region and by category, and the ratio to the dense twin."""
    for variant, sizes in variants.items():
        whole = MetricRow("memory_total_peak", total(sizes), workload, phase, variant=variant, forced=forced)
        yield whole
        yield replace(whole, metric="memory_dynamic_peak", value=sizes["dynamic", ""])
        for (measure, name), size_bytes in sizes.items():
            if measure == "region":
                yield replace(whole, metric="memory_peak", value=size_bytes, region=name)
            if measure == "category":
                yield replace(whole, metric="memory_peak", value=size_bytes, category=name)
            if measure == "at_peak":
                yield replace(whole, metric="memory_at_peak", value=size_bytes, category=name)
        if variant != "dense" and "dense" in variants:
            yield replace(whole, metric="memory_vs_dense", value=whole.value / total(variants["dense"]))
