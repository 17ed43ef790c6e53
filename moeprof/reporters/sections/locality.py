"""Whether the same experts stay in use, which go together, and whether domains want different ones."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.routing.correlation import correlation, strongest_pairs
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, pooled
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.reporters.documents.document import Block, Details, Heading, Paragraph, Table
from moeprof.reporters.numbers import Numbers, cell, percent
from moeprof.reporters.sections.tables import layer_rows, metric_table
from moeprof.reporters.sections.together import correlation_maps

PAIRS = 3


def locality_blocks(trace: RoutingTrace | None, numbers: Numbers, phase: str) -> Iterator[Block]:
    """Reuse from step to step, correlated experts, and drift between domains."""
    yield Heading("Locality and drift", 3)
    if numbers.distinct("layer", phase, "active_jaccard"):
        yield reuse_table(numbers, phase)
    else:
        yield Paragraph("Locality needs two steps of a domain one after the other; this phase has none.")
    if trace is not None and len(trace):
        layers = list(layer_matrices(trace))
        yield correlation_table(layers)
        if maps := list(correlation_maps(layers)):
            yield Details("which experts are busy together, layer by layer", maps)
    yield from drift_blocks(numbers, phase)


def reuse_table(numbers: Numbers, phase: str) -> Table:
    """How much of a step's active set was active before."""
    return metric_table(
        numbers,
        ["layer", "domain"],
        {
            "Jaccard": "active_jaccard",
            "overlap": ("active_overlap", percent),
            "by chance": ("active_overlap_by_chance", percent),
            "reuse distance": "reuse_distance",
        },
        layer_rows(numbers, phase),
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


def drift_blocks(numbers: Numbers, phase: str) -> Iterator[Block]:
    """How differently two domains use a layer."""
    pairs = numbers.distinct("category", phase, "hot_jaccard") or numbers.distinct("category", phase, "load_divergence")
    if not pairs:
        yield Paragraph("Drift needs two domains or languages; this run has one.")
        return
    rows = [
        [
            layer,
            pair,
            cell(numbers.get("hot_jaccard", phase, layer=layer, category=pair)),
            cell(numbers.get("load_divergence", phase, layer=layer, category=pair)),
        ]
        for layer in numbers.layers(phase)
        for pair in pairs
    ]
    caption = (
        "Drift between domains: Jaccard of the hottest quarter of the experts (1 the same, 0 none in common), and Jensen-Shannon "
        "divergence of the loads in bits (0 the same, 1 nothing in common)."
    )
    yield Table(["layer", "domains", "hot Jaccard", "divergence"], rows, labels=2, caption=caption)
