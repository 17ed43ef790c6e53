"""How well a trained model does its work, as a caution beside its speed."""

from collections.abc import Iterator

from moeprof.reporters.documents.document import Block
from moeprof.reporters.numbers import Numbers
from moeprof.reporters.sections.tables import Column, domain_rows, metric_table

MEASURES: dict[str, tuple[dict[str, Column], str]] = {
    "bits_per_byte": (
        {"bits per byte": "bits_per_byte", "perplexity": "perplexity"},
        "Quality under static gating: cross-entropy per byte of text, and perplexity per token; lower is better.",
    ),
    "chrf": ({"chrF": "chrf"}, "Quality under static gating: chrF of greedy translations against the references, 0 to 100."),
}


def quality_blocks(numbers: Numbers, phase: str) -> Iterator[Block]:
    """The table of a phase whose quality was measured; nothing for random weights."""
    for metric, (columns, caption) in MEASURES.items():
        if numbers.distinct("domain", phase, metric):
            yield metric_table(numbers, ["domain"], columns, domain_rows(numbers, phase), caption)
