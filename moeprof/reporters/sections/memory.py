"""Memory at the peak of a step, by category."""

from collections.abc import Iterator, Mapping

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import cell, times
from moeprof.reporters.documents.document import Block, Heading, Paragraph, Table
from moeprof.reporters.sections.speed import columns_of


def memory_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Peaks of the MoE model and its dense twin, and the region of the peak."""
    yield Heading("Memory", 3)
    total = metrics.or_none("memory_total_peak", phase=phase, variant=metrics.baseline)
    if total is None:
        yield Paragraph("Not measured: this run has no memory pass.")
        return
    yield from largest_sentence(metrics, phase, total)
    yield category_table(metrics, phase, columns_of(metrics))


def largest_sentence(metrics: RunMetrics, phase: str, total: float) -> Iterator[Block]:
    """The peak, its region, and the largest category."""
    categories = metrics.distinct("category", "memory_at_peak", phase=phase)
    sizes = {
        category: metrics.or_none("memory_at_peak", phase=phase, variant=metrics.baseline, category=category) or 0.0
        for category in categories
    }
    regions = metrics.distinct("region", "memory_peak", phase=phase)
    peaks = {
        region: metrics.or_none("memory_peak", phase=phase, variant=metrics.baseline, region=region) or 0.0
        for region in regions
    }
    if not sizes or not peaks:
        return
    most, where = max(sizes, key=lambda name: sizes[name]), max(peaks, key=lambda name: peaks[name])
    ratio = metrics.or_none("memory_vs_dense", phase=phase, variant=metrics.baseline)
    compared = f", {times(ratio)} that of the dense twin" if ratio else ""
    yield Paragraph(
        f"Peak per {phase} step: {format_bytes(total)}{compared}. It is in region {where}; its largest category is "
        f"{most.replace('_', ' ')} ({format_bytes(sizes[most])})."
    )


def category_table(metrics: RunMetrics, phase: str, variants: Mapping[str, str]) -> Table:
    """Live bytes at the peak by category, with a column per variant; `variants` maps labels to column titles."""
    categories = metrics.distinct("category", "memory_at_peak", phase=phase)
    rows = [
        [
            category.replace("_", " "),
            *(
                cell(metrics.or_none("memory_at_peak", phase=phase, variant=v, category=category), format_bytes)
                for v in variants
            ),
        ]
        for category in categories
    ]
    rows.append(
        ["total", *(cell(metrics.or_none("memory_total_peak", phase=phase, variant=v), format_bytes) for v in variants)]
    )
    caption = "Live tensor bytes at the peak of one batch. Weights are static, everything else is dynamic."
    return Table(["category", *variants.values()], rows, caption=caption)
