"""How much memory, and what it is for."""

from collections.abc import Iterator, Mapping

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import cell, times
from moeprof.reporters.documents.document import Block, Heading, Paragraph, Table
from moeprof.reporters.sections.speed import VARIANTS


def memory_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Peaks beside the dense twin, and the regions that cause them."""
    yield Heading("Memory", 3)
    total = metrics.or_none("memory_total_peak", phase=phase, variant="static")
    if total is None:
        yield Paragraph("This run has no pass `memory`, so the peak of a step is not known.")
        return
    yield from largest_sentence(metrics, phase, total)
    yield category_table(metrics, phase, VARIANTS)


def largest_sentence(metrics: RunMetrics, phase: str, total: float) -> Iterator[Block]:
    """What takes most, and where the peak is."""
    categories = metrics.distinct("category", "memory_at_peak", phase=phase)
    sizes = {
        category: metrics.or_none("memory_at_peak", phase=phase, variant="static", category=category) or 0.0
        for category in categories
    }
    regions = metrics.distinct("region", "memory_peak", phase=phase)
    peaks = {region: metrics.or_none("memory_peak", phase=phase, variant="static", region=region) or 0.0 for region in regions}
    if not sizes or not peaks:
        return
    most, where = max(sizes, key=lambda name: sizes[name]), max(peaks, key=lambda name: peaks[name])
    ratio = metrics.or_none("memory_vs_dense", phase=phase, variant="static")
    beside = f", {times(ratio)} that of the dense twin" if ratio else ""
    yield Paragraph(
        f"One {phase} step needs {format_bytes(total)} at its peak{beside}; the peak is in {where}, and most of it is "
        f"{most.replace('_', ' ')} ({format_bytes(sizes[most])})."
    )


def category_table(metrics: RunMetrics, phase: str, variants: Mapping[str, str]) -> Table:
    """What is live at the peak, by category, the variants side by side under the names given."""
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
    caption = "Live tensor bytes when the total is highest, one batch: weights are static, the rest is dynamic."
    return Table(["category", *variants.values()], rows, caption=caption)
