"""How far two domains or languages use a layer differently (paper figure 6: hot experts change between LM domains).

Shape suffix: E experts.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np

from moeprof.analysis.routing.layer_rows import Values, over_layers, rows_at
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix, layer_matrices
from moeprof.records.arrays import Floats
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

DomainPair = tuple[str, str]
"""Two domains."""

HALVES = "history vs test"
"""The category of the drift between two halves of the same domains, which is that of no pair of domains."""


def drift_rows(trace: RoutingTrace) -> list[MetricRow]:
    """Drift of every layer between every two named domains, category as in `category_of`, and over all pairs, category "".

    The rows over all layers are means of the layers' rows. A trace of one domain has none.
    """
    return drift_between(trace.header, layer_matrices(trace))


def drift_between(header: TraceHeader, layers: Iterable[Sequence[LoadMatrix]]) -> list[MetricRow]:
    """The rows of `drift_rows`, from the matrices of every layer by domain."""
    rows: list[MetricRow] = []
    layers_of: dict[DomainPair | None, list[Values]] = {}
    for matrices in layers:
        pairs = dict(domain_pairs(matrices))
        for pair, values in (pairs | {None: mean_of(list(pairs.values()))}).items():
            layers_of.setdefault(pair, []).append(values)
            rows += rows_at(header, values, layer=matrices[0].layer, category=category_of(pair))
    for pair, found in layers_of.items():
        rows += rows_at(header, over_layers(found), category=category_of(pair))
    return rows


def domain_pairs(matrices: Sequence[LoadMatrix]) -> Iterator[tuple[DomainPair, Values]]:
    """The drift between every two of one layer's domains, in order of first appearance."""
    for one, other in combinations([matrix for matrix in matrices if matrix.domain], 2):
        yield (one.domain, other.domain), drift_metrics(one.counts_E, other.counts_E)


def category_of(pair: DomainPair | None) -> str:
    """The cell `category` of a pair, `a vs b`; empty for all pairs.

    Names that would make it ambiguous are quoted, so that every pair has a category of its own: `"history" vs "test"`.
    """
    if pair is None:
        return ""
    ambiguous = pair == ("history", "test") or any(" vs " in f" {name} " or name.startswith('"') for name in pair)
    return " vs ".join(json.dumps(name, ensure_ascii=False) if ambiguous else name for name in pair)


def mean_of(pairs: Sequence[Values]) -> Values:
    """The mean over pairs of every metric that any of them has."""
    names = dict.fromkeys(name for values in pairs for name in values)
    return {name: fmean(values[name] for values in pairs if name in values) for name in names}


def drift_metrics(one_E: Counts, other_E: Counts) -> dict[str, float]:
    """Drift between the total loads of two domains; {} if one of them has no choices."""
    if not (one_E.sum() and other_E.sum()):
        return {}
    return {"hot_jaccard": hot_jaccard(one_E, other_E), "load_divergence": divergence_bits(one_E, other_E)}


def hot_experts(counts_E: Counts) -> set[int]:
    """The quarter of the experts (rounded up) with the most choices; ties go to the lowest id, an unused expert is not hot."""
    quarter = np.argsort(-counts_E, kind="stable")[: -(-len(counts_E) // 4)]
    return {int(expert) for expert in quarter if counts_E[expert]}


def hot_jaccard(one_E: Counts, other_E: Counts) -> float:
    """Experts hot in both over experts hot in either; 1 is the same hot set."""
    one, other = hot_experts(one_E), hot_experts(other_E)
    return len(one & other) / len(one | other)


def divergence_bits(one_E: Counts, other_E: Counts) -> float:
    """Jensen-Shannon divergence of two loads: 0 for the same shares, 1 bit for disjoint experts (Lin 1991)."""
    one, other = one_E / one_E.sum(), other_E / other_E.sum()
    middle = (one + other) / 2
    return min(1.0, max(0.0, (relative_entropy_bits(one, middle) + relative_entropy_bits(other, middle)) / 2))


def relative_entropy_bits(shares_E: Floats, reference_E: Floats) -> float:
    """Kullback-Leibler divergence from `reference_E`, in bits; it is positive for every expert for which `shares_E` is."""
    used = shares_E > 0
    return float((shares_E[used] * np.log2(shares_E[used] / reference_E[used])).sum())
