"""From load matrices to metric rows: per layer first, and only then over layers."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix, layer_matrices, pooled
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

Values = Mapping[str, float]
"""Metrics by name; one that cannot be computed is absent."""

OVER_LAYERS: dict[str, Callable[[Sequence[float]], float]] = {
    "steps": max,
    "dead_experts": sum,
    "hottest_share": max,
}
"""How the row over all layers is computed from the layers' rows if it is not their mean."""


def measured(
    trace: RoutingTrace,
    measure: Callable[[LoadMatrix], Values],
    *,
    slot: int | None = None,
    rank_R: Counts | None = None,
) -> list[MetricRow]:
    """The results of `measure` for every layer and domain of a trace, as `measured_layers` orders them.

    `slot` 0 measures first choices only; `rank_R` is the rank of every row.
    """
    return measured_layers(trace.header, layer_matrices(trace, slot=slot, rank_R=rank_R), measure)


def measured_layers(
    header: TraceHeader, layers: Iterable[Sequence[LoadMatrix]], measure: Callable[[LoadMatrix], Values]
) -> list[MetricRow]:
    """The results of `measure` for every layer and domain, for every layer over all domains, and for both over all layers.

    `layers` has a matrix per domain for each layer. A domain without a name has no row of its own, because its address is that of
    all domains.
    """
    rows: list[MetricRow] = []
    layers_of: dict[str, list[Values]] = {}
    for matrices in layers:
        for matrix in (*(one for one in matrices if one.domain), pooled(matrices)):
            values = measure(matrix)
            layers_of.setdefault(matrix.domain, []).append(values)
            rows += rows_at(header, values, layer=matrix.layer, domain=matrix.domain)
    for domain, found in layers_of.items():
        rows += rows_at(header, over_layers(found), domain=domain)
    return rows


def over_layers(layers: Sequence[Values]) -> Values:
    """One value per metric that any layer has."""
    names = dict.fromkeys(name for values in layers for name in values)
    return {name: OVER_LAYERS.get(name, fmean)([values[name] for values in layers if name in values]) for name in names}


def rows_at(
    header: TraceHeader, values: Values, *, layer: str = "", domain: str = "", category: str = "", point: str = ""
) -> Iterator[MetricRow]:
    """The rows of `values` at one address; workload, phase, variant and whether routing was forced are the trace's."""
    for name, value in values.items():
        yield MetricRow(
            metric=name,
            value=float(value),
            workload=header.workload,
            phase=header.phase,
            variant=header.variant,
            layer=layer,
            domain=domain,
            category=category,
            point=point,
            forced=header.forced,
        )
