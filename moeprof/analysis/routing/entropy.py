"""How decided the routers are: entropy 0 for a certain choice, ln E if all experts are equally likely."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from moeprof.analysis.routing.layer_rows import over_layers, rows_at
from moeprof.analysis.routing.trace_rows import baseline_header
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.run.raw_tables import GATE_ENTROPIES
from moeprof.records.run.run import Run
from moeprof.records.traces.gate_entropy import GateEntropy
from moeprof.records.traces.routing_trace import TraceHeader


def gate_entropy_rows(run: Run) -> Iterator[Samples]:
    """The rows of every phase under the baseline; another variant's router decides the same."""
    for phase in run.record.ran.phases:
        header = baseline_header(run, phase)
        if header is not None:
            yield from ((row, []) for row in entropy_rows(header, entropies_of(run, phase, header.variant)))


def entropies_of(run: Run, phase: str, variant: str) -> list[GateEntropy]:
    """The recorded entropies of all ranks."""
    return [
        GateEntropy(row["layer"], row["domain"], row["tokens"], row["entropy_nats"])
        for row in run.raw(GATE_ENTROPIES).to_pylist()
        if (row["phase"], row["variant"]) == (phase, variant)
    ]


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
    """The metrics of one layer."""
    total, tokens = sum(step.total for step in steps), sum(step.tokens for step in steps)
    return {"gate_entropy": total / tokens, "entropy_gating": fmean(step.mean for step in steps)}
