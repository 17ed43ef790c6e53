"""The quality of a trained model, reported with its speed."""

from collections.abc import Callable, Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.units import format_significant
from moeprof.reporters.cells import Write, cell
from moeprof.reporters.documents.document import Block, Table
from moeprof.reporters.sections.tables import domain_rows

CellAt = Callable[[RunMetrics], str]
"""Formats the cell of a column at the address of a row."""

MEASURES: dict[str, tuple[dict[str, CellAt], str]] = {
    "bits_per_byte": (
        {"bits per byte": lambda here: cell(here.or_none("bits_per_byte")), "perplexity": lambda here: perplexity_cell(here)},
        "Quality: cross-entropy in bits per byte of text, and perplexity per token; lower is better.",
    ),
    "chrf": (
        {"chrF": lambda here: cell(here.or_none("chrf"))},
        "Quality: chrF of greedy translations against the references, from 0 to 100.",
    ),
}
"""The columns and the caption of the table of each measure."""


def quality_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """The quality of a phase by domain; nothing if the weights are random."""
    for metric, (columns, caption) in MEASURES.items():
        if metrics.or_none(metric, phase=phase, variant=metrics.baseline) is not None:
            cells = [
                [*labels, *(write(metrics.at(**address)) for write in columns.values())]
                for labels, address in domain_rows(metrics, phase, metrics.baseline)
            ]
            yield Table(["domain", *columns], cells, caption=caption)


def perplexity_cell(here: RunMetrics, write: Write = format_significant) -> str:
    """The perplexity; `> 1e308` if only its cross-entropy is a number that can be recorded, a dash if it was not measured."""
    perplexity = here.or_none("perplexity")
    too_large = perplexity is None and here.or_none("bits_per_byte") is not None
    return "> 1e308" if too_large else cell(perplexity, write)
