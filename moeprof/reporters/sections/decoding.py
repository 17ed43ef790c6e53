"""Latencies of decoding: until the first token, per further token, and of the slowest steps."""

from collections.abc import Iterator, Mapping, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.row import Address
from moeprof.records.units import format_duration
from moeprof.reporters.documents.document import Block
from moeprof.reporters.sections.tables import MetricColumn, Row, metric_table, scope_name

LATENCIES: dict[str, MetricColumn] = {
    "first token": ("time_to_first_token", format_duration),
    "per further token": ("time_per_output_token", format_duration),
    "step p50": ("decode_step_p50", format_duration),
    "p95": ("decode_step_p95", format_duration),
    "p99": ("decode_step_p99", format_duration),
}


def latency_blocks(
    metrics: RunMetrics, phase: str, variants: Mapping[str, str], domains: Sequence[str] = ("",)
) -> Iterator[Block]:
    """A row per domain and variant; nothing if the run has no times of steps. `variants` maps labels to titles."""
    rows = [
        Row([scope_name(domain), title], Address(phase=phase, domain=domain, variant=variant))
        for domain in domains
        for variant, title in variants.items()
        if metrics.or_none("decode_step_p50", phase=phase, domain=domain, variant=variant) is not None
    ]
    if rows:
        caption = (
            "Latency of decoding. First token: from the start of the prompt, or of the source, until the first generated token. "
            "Percentiles: of the steps of all rounds."
        )
        yield metric_table(metrics, ["domain", "model"], LATENCIES, rows, caption)
