"""How much memory, and what it is for."""

from collections.abc import Iterator, Mapping

from moeprof.records.units import format_bytes
from moeprof.reporters.documents.document import Block, Heading, Paragraph, Table
from moeprof.reporters.numbers import Numbers, cell, times
from moeprof.reporters.sections.speed import VARIANTS


def memory_blocks(numbers: Numbers, phase: str) -> Iterator[Block]:
    """Peaks beside the dense twin, and the regions that cause them."""
    yield Heading("Memory", 3)
    total = numbers.get("memory_total_peak", phase)
    if total is None:
        yield Paragraph("This run has no pass `memory`, so the peak of a step is not known.")
        return
    yield from largest_sentence(numbers, phase, total)
    yield category_table(numbers, phase, VARIANTS)


def largest_sentence(numbers: Numbers, phase: str, total: float) -> Iterator[Block]:
    """What takes most, and where the peak is."""
    categories = numbers.distinct("category", phase, "memory_at_peak")
    sizes = {category: numbers.get("memory_at_peak", phase, category=category) or 0.0 for category in categories}
    regions = numbers.distinct("region", phase, "memory_peak")
    peaks = {region: numbers.get("memory_peak", phase, region=region) or 0.0 for region in regions}
    if not sizes or not peaks:
        return
    most, where = max(sizes, key=lambda name: sizes[name]), max(peaks, key=lambda name: peaks[name])
    ratio = numbers.get("memory_vs_dense", phase)
    beside = f", {times(ratio)} that of the dense twin" if ratio else ""
    yield Paragraph(
        f"One {phase} step needs {format_bytes(total)} at its peak{beside}; the peak is in {where}, and most of it is "
        f"{most.replace('_', ' ')} ({format_bytes(sizes[most])})."
    )


def category_table(numbers: Numbers, phase: str, variants: Mapping[str, str]) -> Table:
    """What is live at the peak, by category, the variants side by side under the names given."""
    categories = numbers.distinct("category", phase, "memory_at_peak")
    rows = [
        [
            category.replace("_", " "),
            *(cell(numbers.get("memory_at_peak", phase, variant=v, category=category), format_bytes) for v in variants),
        ]
        for category in categories
    ]
    rows.append(["total", *(cell(numbers.get("memory_total_peak", phase, variant=v), format_bytes) for v in variants)])
    caption = "Live tensor bytes when the total is highest, one batch: weights are static, the rest is dynamic."
    return Table(["category", *variants.values()], rows, caption=caption)
