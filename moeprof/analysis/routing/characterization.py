"""The rows of a characterization that runs no model: from a trace of any engine, or from counts without order."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from weakref import WeakKeyDictionary

import numpy as np
import pyarrow as pa

from moeprof.analysis.routing.analyses import by_variant
from moeprof.analysis.routing.chance import chance_metrics, entropy
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.distinct import distinct_rows, expected_rows
from moeprof.analysis.routing.drift import drift_between
from moeprof.analysis.routing.hot_set import elsewhere_rows, hot_set_rows
from moeprof.analysis.routing.layer_rows import measured_layers, rows_at
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix, grouped, layer_matrices, pooled
from moeprof.analysis.routing.locality import locality_metrics
from moeprof.analysis.routing.metrics import balance_metrics, routing_metrics
from moeprof.analysis.routing.prediction import prompt_rows, static_rows
from moeprof.analysis.routing.regroup import together
from moeprof.analysis.routing.token_choices import PhaseTokens, phase_tokens
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.run.raw_tables import EXPERT_COUNTS
from moeprof.records.run.replay import ALL, DECODE, PREFILL, TraceRequest
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

LayersByDomain = Sequence[Sequence[LoadMatrix]]
"""For each layer a matrix per domain."""

LAYERS: WeakKeyDictionary[Run, dict[str, LayersByDomain]] = WeakKeyDictionary()
WHOLE_LAYERS: WeakKeyDictionary[Run, dict[str, list[LoadMatrix]]] = WeakKeyDictionary()
"""The matrices of runs that are being reported: tables and figures share them."""


def characterization_rows(run: Run) -> Iterator[MetricRow]:
    """The rows of a run directory, from its traces or its counts."""
    if run.record.characterized.counts_only:
        return count_rows(counted_header(run.record.characterized), counted_layers(run))
    return trace_rows(run.traces)


def recorded_layers(run: Run) -> dict[str, LayersByDomain]:
    """The load matrices of every phase of a run directory, decode last; counts are one phase. Made once for a run."""
    if run not in LAYERS:
        if run.record.characterized.counts_only:
            LAYERS[run] = {ALL: counted_layers(run)}
        else:
            LAYERS[run] = {phase: list(layer_matrices(together(ranks))) for phase, ranks in by_phase(run.traces).items()}
    return LAYERS[run]


def whole_layers(run: Run) -> dict[str, list[LoadMatrix]]:
    """The same over all domains, a matrix per layer; made once for a run."""
    if run not in WHOLE_LAYERS:
        WHOLE_LAYERS[run] = {phase: list(map(pooled, layers)) for phase, layers in recorded_layers(run).items()}
    return WHOLE_LAYERS[run]


def by_phase(traces: Sequence[RoutingTrace]) -> dict[str, list[RoutingTrace]]:
    """The traces of all ranks by phase, decode last."""
    found = {phase: ranks for (phase, _), ranks in by_variant(traces).items()}
    return dict(sorted(found.items(), key=lambda one: one[0] == DECODE))


def counted_header(request: TraceRequest) -> TraceHeader:
    """The header that a trace of the counted choices would have, all of them in one phase."""
    trace = request.trace
    return TraceHeader(
        workload=trace.workload,
        phase=ALL,
        variant=request.variant,
        num_experts=trace.num_experts,
        top_k=trace.top_k,
        layers=trace.layers,
    )


def counted_layers(run: Run) -> list[list[LoadMatrix]]:
    """The recorded counts as matrices; totals are one step."""
    table, trace = run.raw(EXPERT_COUNTS), run.record.trace
    step, expert, choices = (table[name].to_numpy() for name in ("step", "expert", "choices"))
    (layer_R, layers), (domain_R, domains) = (codes_of(table, name) for name in ("layer", "domain"))
    rows_R, starts = grouped(layer_R * len(domains) + domain_R, len(layers) * len(domains))
    found: dict[str, list[LoadMatrix]] = {layer: [] for layer in layers}
    for group, (first, last) in enumerate(pairwise(starts)):
        rows = rows_R[first:last]
        if len(rows):
            counts_EB = np.zeros((trace.num_experts, int(step[rows].max()) + 1), np.int64)
            counts_EB[expert[rows], step[rows]] = choices[rows]
            layer, domain = layers[group // len(domains)], domains[group % len(domains)]
            found[layer].append(matrix_of_counts(layer, domain, counts_EB, trace.top_k))
    return list(found.values())


def codes_of(table: pa.Table, name: str) -> tuple[Counts, list[str]]:
    """A column of names as codes (rows,), and the names in order of first appearance."""
    encoded = table[name].combine_chunks().dictionary_encode()
    whole = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    return whole.indices.to_numpy().astype(np.int64), whole.dictionary.to_pylist()


def trace_rows(traces: Sequence[RoutingTrace]) -> Iterator[MetricRow]:
    """Everything that choices of tokens allow, phase by phase."""
    phases: dict[str, PhaseTokens] = {}
    for phase, ranks in by_phase(traces).items():
        phases[phase] = phase_tokens(ranks)
        yield from phase_rows(ranks[0].header, list(layer_matrices(together(ranks))), phases[phase])
    if {PREFILL, DECODE} <= set(phases):
        yield from prompt_rows(phases[PREFILL], phases[DECODE])


def phase_rows(header: TraceHeader, layers: LayersByDomain, tokens: PhaseTokens) -> Iterator[MetricRow]:
    """Loads, locality, drift, distinct experts, the hot set and what sets that never change predict."""
    yield from rows_at(header, {"sequences": len(tokens.sequences)})
    yield from measured_layers(header, layers, step_metrics)
    yield from drift_between(header, layers)
    yield from distinct_rows(tokens)
    yield from hot_set_rows(tokens)
    yield from elsewhere_rows(header, layers)
    first_uses = {found.layer: found.first_uses(header.num_experts) for found in tokens.layers}
    yield from static_rows(header, layers, first_uses)


def step_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """The metrics of one load matrix, each beside its value by chance."""
    return routing_metrics(matrix) | locality_metrics(matrix) | chance_metrics(matrix)


def count_rows(header: TraceHeader, layers: LayersByDomain) -> Iterator[MetricRow]:
    """What counts allow: loads, drift, the hot set of another domain, distinct experts of independent tokens; with steps, locality."""
    stepped = any(matrix.num_steps > 1 for matrices in layers for matrix in matrices)
    yield from measured_layers(header, layers, counted_step_metrics if stepped else count_metrics)
    yield from drift_between(header, layers)
    yield from elsewhere_rows(header, layers)
    yield from expected_rows(header, layers)
    if stepped:
        by_id = np.arange(header.num_experts)
        yield from static_rows(header, layers, {matrices[0].layer: by_id for matrices in layers})


def count_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """The metrics of total loads."""
    loads = {"dead_experts": int(matrix.dead_E.sum()), "load_entropy": entropy(matrix.counts_E)}
    return loads | balance_metrics(matrix.counts_E)


def counted_step_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """The metrics of counts by step, whose tokens are choices divided by `top_k`; drops are not known."""
    return {name: value for name, value in step_metrics(matrix).items() if not name.startswith(("dropped", "overflow"))}
