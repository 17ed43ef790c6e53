"""Reuse of experts from step to step, correlated experts, and drift between domains."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.routing.correlation import correlation, strongest_pairs
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, pooled
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.reporters.cells import cell, percent
from moeprof.reporters.documents.document import Block, Details, Heading, Paragraph, Table
from moeprof.reporters.sections.correlation import correlation_maps
from moeprof.reporters.sections.tables import layer_rows, metric_table

PAIRS = 3
"""Pairs of experts in a row of the table."""


def locality_blocks(trace: RoutingTrace | None, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """All tables and maps of a phase."""
    yield Heading("Locality and drift", 3)
    if metrics.distinct("layer", "active_jaccard", phase=phase):
        yield reuse_table(metrics, phase)
    else:
        yield Paragraph("Locality needs two consecutive steps of a domain; this phase has none.")
    if trace is not None and len(trace):
        layers = list(layer_matrices(trace))
        yield correlation_table(layers)
        if maps := list(correlation_maps(layers)):
            yield Details("correlated experts, layer by layer", maps)
    yield from drift_blocks(metrics, phase)


def reuse_table(metrics: RunMetrics, phase: str) -> Table:
    """How many of a step's active experts the step before had used."""
    return metric_table(
        metrics,
        ["layer", "domain"],
        {
            "Jaccard": "active_jaccard",
            "overlap": ("active_overlap", percent),
            "by chance": ("active_overlap_by_chance", percent),
            "reuse distance": "reuse_distance",
        },
        layer_rows(metrics, phase, metrics.baseline),
        "Active experts of consecutive steps. Jaccard = Jaccard index of the two sets; overlap = share of a step's experts that the step "
        "before used, with the value expected by chance; reuse distance = steps until an expert is used again (median).",
    )


def correlation_table(layers: Sequence[Sequence[LoadMatrix]]) -> Table:
    """The pairs of experts with the strongest correlation, per layer."""
    rows = []
    for own in layers:
        found = correlation(pooled(own))
        pairs = [f"{one}+{other} {value:+.2f}" for one, other, value in strongest_pairs(found, PAIRS)]
        rows.append([own[0].layer, str(len(found.experts)), ", ".join(pairs) or "none (constant loads or a single step)"])
    caption = (
        "Pearson correlation of the experts' shares over steps; undefined for experts that are never active or never vary."
    )
    return Table(["layer", "varying experts", "strongest pairs"], rows, caption=caption)


def drift_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """How much the loads of a layer differ between two domains."""
    pairs = metrics.distinct("category", "hot_jaccard", phase=phase) or metrics.distinct(
        "category", "load_divergence", phase=phase
    )
    if not pairs:
        yield Paragraph("Drift needs two domains or languages; this run has one.")
        return
    rows = [
        [
            layer,
            pair,
            cell(metrics.or_none("hot_jaccard", phase=phase, variant=metrics.baseline, layer=layer, category=pair)),
            cell(metrics.or_none("load_divergence", phase=phase, variant=metrics.baseline, layer=layer, category=pair)),
        ]
        for layer in metrics.distinct("layer", "load_divergence", phase=phase)
        for pair in pairs
    ]
    caption = (
        "Drift between domains. hot Jaccard = Jaccard index of the hottest quarters of the experts (1 identical, 0 disjoint); "
        "divergence = Jensen-Shannon divergence of the loads in bits (0 identical, 1 disjoint)."
    )
    yield Table(["layer", "domains", "hot Jaccard", "divergence"], rows, labels=2, caption=caption)
