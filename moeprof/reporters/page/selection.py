"""Selections of phase, domain and layer, in the words of the selectors."""

from collections.abc import Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.reporters.page.figure import Hue, View

ALL_DOMAINS, ALL_LAYERS = "all domains", "all layers"


def variant_colour(label: str) -> Hue:
    """The colour of a variant."""
    return Hue("variant", label)


def domain_facets(metrics: RunMetrics, phase: str) -> list[tuple[str, str]]:
    """Pairs of a word and the domain of addresses: all domains together, and each of them if there are several."""
    domains = metrics.domains(phase)
    return [(ALL_DOMAINS, ""), *((domain, domain) for domain in domains if len(domains) > 1)]


def layer_facets(layers: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of a word and the layer of addresses: all layers together, and each of them."""
    return [(ALL_LAYERS, ""), *((f"layer {layer}", layer) for layer in layers)]


def phases_of(views: Sequence[View]) -> list[str]:
    """The phases of views, in order."""
    return list(dict.fromkeys(view.facets["phase"] for view in views))
