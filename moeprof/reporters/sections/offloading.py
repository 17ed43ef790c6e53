"""Offloading systems beside each other at equal fast memory: one table per phase."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.precision import PRECISIONS
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import MISSING, cell, duration, percent, rate
from moeprof.reporters.documents.document import Block, Heading, Paragraph, Table
from moeprof.reporters.sections.quality import perplexity_cell
from moeprof.reporters.sections.variants import baseline_of, with_interval


def systems_of(run: Run) -> list[str]:
    """Labels of the variants that keep experts outside fast memory, if one of them is an offloading system; otherwise none."""
    variants = run.record.variants_by_label
    return [label for label, one in variants.items() if one.in_slots] if any(one.system for one in variants.values()) else []


def system_name(run: Run, label: str) -> str:
    """What a user calls a system: its preset with changed settings; `paper` for expert buffering, `resident` for none."""
    variant = run.record.variants_by_label[label]
    return variant.store if variant.system else "paper" if variant.in_slots else "resident"


def offloading_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """The table of a phase; nothing if no system offloads experts in it."""
    systems = [label for label in systems_of(run) if metrics.or_none("throughput", phase=phase, variant=label) is not None]
    if not systems:
        return
    yield Heading("Offloading systems", 3)
    yield system_table(run, metrics, phase, systems)
    front = on_front(metrics, phase, systems)
    yield Paragraph(
        f"On the Pareto front of throughput and quality, at equal fast memory: {', '.join(system_name(run, one) for one in front)}."
    )


def system_table(run: Run, metrics: RunMetrics, phase: str, systems: Sequence[str]) -> Table:
    """A row per system, the resident model first."""
    front = on_front(metrics, phase, systems)
    columns = [
        "system",
        "tokens/s",
        "stall/step",
        "hits",
        "on demand",
        "ahead",
        "skipped",
        "far",
        "quality",
        "same token",
        "front",
    ]
    rows = []
    for label in (baseline_of(run), *systems):
        here = metrics.at(phase=phase, variant=label)
        rows.append(
            [
                system_name(run, label),
                with_interval(here, "throughput", rate),
                cell(here.or_none("stall_time"), duration),
                cell(hits(here), percent),
                loaded(here, "demand_bytes"),
                loaded(here, "prefetch_bytes"),
                cell(share(here, "skipped_uses"), percent),
                cell(share(here, "far_uses"), percent),
                quality_cell(here),
                cell(here.or_none("token_agreement"), percent),
                "yes" if label in front else "",
            ]
        )
    return Table(
        columns,
        rows,
        caption="All systems have the bytes of the same number of slots; the resident model has every expert in fast memory. Hits, bytes "
        "by precision, and shares of uses that are skipped or computed on the far side: all recorded batches from a cold start. "
        "Quality: perplexity, or chrF. Same token: share of tokens for which the resident model predicts the same next one.",
    )


def hits(here: RunMetrics) -> float | None:
    """The share of uses whose expert was resident or on its way."""
    missed = here.or_none("miss_rate")
    found = here.or_none("unit_hit_rate")
    return found if found is not None or missed is None else 1 - missed


def share(here: RunMetrics, metric: str) -> float | None:
    """The part of all uses that was skipped, or computed on the far side."""
    counts = [here.or_none(name) for name in ("unit_uses", "skipped_uses", "far_uses")]
    mine, uses = here.or_none(metric), sum(count for count in counts if count)
    return None if mine is None or not uses else mine / uses


def loaded(here: RunMetrics, metric: str) -> str:
    """`56.7 MiB`, or by precision: `20.1 MiB high, 4.2 MiB int4`; of expert buffering all bytes are on demand."""
    known = set(here.distinct("category", metric))
    by_precision = {name: here.or_none(metric, category=name) for name in ("high", *PRECISIONS) if name in known}
    parts = [f"{format_bytes(size)} {name}" for name, size in by_precision.items() if size]
    if by_precision:
        return ", ".join(parts) or "0 B"
    return cell(here.or_none("bytes_loaded"), format_bytes) if metric == "demand_bytes" else MISSING


def quality_cell(here: RunMetrics) -> str:
    """The perplexity, or chrF of translations."""
    chrf = here.or_none("chrf")
    return perplexity_cell(here, "{:.4f}".format) if chrf is None else f"{chrf:.2f}"


def quality_of(here: RunMetrics) -> float | None:
    """A number of which more is better, if quality was measured: chrF, or perplexity with its sign turned."""
    chrf, perplexity = here.or_none("chrf"), here.or_none("perplexity")
    return chrf if chrf is not None else None if perplexity is None else -perplexity


def on_front(metrics: RunMetrics, phase: str, systems: Sequence[str]) -> list[str]:
    """Systems such that no other is at least as fast and as good, and better in one of them.

    Without a measure of quality, the agreement with the resident model takes its place.
    """
    points = {}
    for label in systems:
        here = metrics.at(phase=phase, variant=label)
        speed, quality, same = here.or_none("throughput"), quality_of(here), here.or_none("token_agreement")
        if speed is not None:
            points[label] = float(speed), float(quality if quality is not None else same if same is not None else 0)
    return [
        label
        for label, (speed, quality) in points.items()
        if not any(
            other >= speed and good >= quality and (other, good) != (speed, quality)
            for name, (other, good) in points.items()
            if name != label
        )
    ]
