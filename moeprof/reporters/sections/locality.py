"""Whether the same experts stay in use, which go together, and whether domains want different ones."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.routing.correlation import correlation, strongest_pairs
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, pooled
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.reporters.cells import cell, percent
from moeprof.reporters.documents.document import Block, Details, Heading, Paragraph, Table
from moeprof.reporters.sections.tables import layer_rows, metric_table
from moeprof.reporters.sections.together import correlation_maps

PAIRS = 3


def locality_blocks(trace: RoutingTrace | None, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """Reuse from step to step, correlated experts, and drift between domains."""
    yield Heading("Locality and drift", 3)
    if metrics.distinct("layer", "active_jaccard", phase=phase):
        yield reuse_table(metrics, phase)
    else:
        yield Paragraph("Locality needs two steps of a domain one after the other; this phase has none.")
    if trace is not None and len(trace):
        layers = list(layer_matrices(trace))
        yield correlation_table(layers)
        if maps := list(correlation_maps(layers)):
            yield Details("which experts are busy together, layer by layer", maps)
    yield from drift_blocks(metrics, phase)


def reuse_table(metrics: RunMetrics, phase: str) -> Table:
    """How much of a step's active set was active before."""
    return metric_table(
        metrics,
        ["layer", "domain"],
        {
            "Jaccard": "active_jaccard",
            "overlap": ("active_overlap", percent),
            "by chance": ("active_overlap_by_chance", percent),
            "reuse distance": "reuse_distance",
        },
        layer_rows(metrics, phase, "static"),
        "Active experts of consecutive steps: Jaccard of the two sets; share of a step's experts that the step before used, and "
        "what chance would give; steps until an expert is used again (median).",
    )


def correlation_table(layers: Sequence[Sequence[LoadMatrix]]) -> Table:
    """The pairs of experts whose loads go together most, per layer."""
    rows = []
    for own in layers:
        found = correlation(pooled(own))
        pairs = [f"{one}+{other} {value:+.2f}" for one, other, value in strongest_pairs(found, PAIRS)]
        rows.append([own[0].layer, str(len(found.experts)), ", ".join(pairs) or "none: constant loads, or a single step"])
    caption = "Pearson correlation of the experts' shares over steps; experts that were never active or never vary have none."
    return Table(["layer", "experts that vary", "strongest pairs"], rows, caption=caption)


def drift_blocks(metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """How differently two domains use a layer."""
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
            cell(metrics.or_none("hot_jaccard", phase=phase, variant="static", layer=layer, category=pair)),
            cell(metrics.or_none("load_divergence", phase=phase, variant="static", layer=layer, category=pair)),
        ]
        for layer in metrics.layers(phase)
        for pair in pairs
    ]
    caption = (
        "Drift between domains: Jaccard of the hottest quarter of the experts (1 the same, 0 none in common), and Jensen-Shannon "
        "divergence of the loads in bits (0 the same, 1 nothing in common)."
    )
    yield Table(["layer", "domains", "hot Jaccard", "divergence"], rows, labels=2, caption=caption)
