"""The quality of a trained model, reported with its speed."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.reporters.documents.document import Block
from moeprof.reporters.sections.tables import MetricColumn, domain_rows, metric_table

MEASURES: dict[str, tuple[dict[str, MetricColumn], str]] = {
    "bits_per_byte": (
        {"bits per byte": "bits_per_byte", "perplexity": "perplexity"},
        "Quality under static gating: cross-entropy in bits per byte of text, and perplexity per token; lower is better.",
    ),
    "chrf": (
        {"chrF": "chrf"},
        "Quality under static gating: chrF of greedy translations against the references, from 0 to 100.",
    ),
}


def quality_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """The quality of a phase by domain; nothing if the weights are random."""
    for metric, (columns, caption) in MEASURES.items():
        if metrics.or_none(metric, phase=phase, variant="static") is not None:
            yield metric_table(metrics, ["domain"], columns, domain_rows(metrics, phase, "static"), caption)
