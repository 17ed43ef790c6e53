"""How decided the routers are: 0 for a sure choice, ln E where all experts look alike."""

from collections.abc import Sequence
from statistics import fmean

from moeprof.analysis.routing.layer_rows import over_layers, rows_at
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.gate_entropy import GateEntropy
from moeprof.records.traces.routing_trace import TraceHeader


def entropy_rows(header: TraceHeader, entropies: Sequence[GateEntropy]) -> list[MetricRow]:
    """`gate_entropy` (mean over tokens) and `entropy_gating` (fairseq: mean over steps) per layer and domain, and over layers."""
    rows: list[MetricRow] = []
    domains = list(dict.fromkeys(entropy.domain for entropy in entropies if entropy.domain))
    for domain in [*domains, ""]:
        layers = []
        for layer in header.layers:
            steps = [entropy for entropy in entropies if entropy.layer == layer and domain in ("", entropy.domain)]
            if steps:
                layers.append(entropy_metrics(steps))
                rows += rows_at(header, layers[-1], layer=layer, domain=domain)
        rows += rows_at(header, over_layers(layers), domain=domain)
    return rows


def entropy_metrics(steps: Sequence[GateEntropy]) -> dict[str, float]:
    """Of one layer."""
    total, tokens = sum(step.total for step in steps), sum(step.tokens for step in steps)
    return {"gate_entropy": total / tokens, "entropy_gating": fmean(step.mean for step in steps)}
