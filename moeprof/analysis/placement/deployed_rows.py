"""What is known of a placement before it is deployed: what it promises on steps that it has not seen, and what moves for it.

Shape suffix: B steps.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from moeprof.analysis.placement.device_load import floor_shares, load_values, over_layers
from moeprof.analysis.placement.trial import Placed, Trial, num_moved, trial_of
from moeprof.analysis.routing.layer_rows import rows_at
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, rank_of_rows
from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.arrays import Floats
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.placement import Placement
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader, joined


def trial_over_ranks(traces: Sequence[RoutingTrace], starts: Mapping[str, int]) -> Trial:
    """Of one phase's traces, one of each rank; `starts` is each domain's first test step."""
    everyone = joined(traces[0].header, [trace.table for trace in traces])
    layers: list[list[LoadMatrix]] = list(layer_matrices(everyone, rank_R=rank_of_rows(traces)))
    return trial_of(layers, starts)


def from_step(trace: RoutingTrace, starts: Mapping[str, int]) -> RoutingTrace:
    """The rows of each domain's test steps."""
    code_R, domains = trace.codes("domain")
    first = np.array([starts.get(domain, 0) for domain in domains], np.int64)
    keep_R = trace.column("step") >= first[code_R] if len(trace) else np.zeros(0, bool)
    return RoutingTrace(trace.header, trace.table.filter(keep_R))


def placed_rows(header: TraceHeader, trial: Trial, placement: Placement) -> Iterator[MetricRow]:
    """Gain over contiguous placement, floors, steps, slots and moves, of the layers that were judged; nothing where none was.

    `header` is of the trace that the placed variant will leave.
    """
    slots = {layer: np.array(placement.layers[layer]) for layer in trial.halves}
    if not slots:
        return
    num_ranks = len(next(iter(slots.values())))
    before = trial.tops(trial.place(CONTIGUOUS.name, Cluster(num_ranks, header.num_experts // num_ranks)))
    found = trial.gain(before, trial.tops(slots))
    whole = {
        "load_gain": found.value,
        "load_gain_low": found.low,
        "load_gain_high": found.high,
        "history_steps": trial.history_steps,
        "test_steps": trial.test_steps,
        "ideal_load": 1 / num_ranks,
        "device_slots": max(slots_DS.shape[1] for slots_DS in slots.values()),
        "moved_experts": sum(num_moved(slots_DS, header.num_experts) for slots_DS in slots.values()),
    }
    yield from rows_at(header, whole)
    yield from floors(header, {layer: floor_shares(trial.halves[layer].test, num_ranks) for layer in slots})
    yield from moves(header, slots)


def floors(header: TraceHeader, floor_B: Mapping[str, Floats]) -> Iterator[MetricRow]:
    """What no placement without copies can pass, by layer and over them."""
    layers = {layer: {f"{name}_floor": at for name, at in load_values(top_B).items()} for layer, top_B in floor_B.items()}
    for layer, values in layers.items():
        yield from rows_at(header, values, layer=layer)
    means = over_layers(list(layers.values()))
    yield from rows_at(header, {name: means[name] for name in next(iter(layers.values()))})


def moves(header: TraceHeader, slots: Placed) -> Iterator[MetricRow]:
    """Experts that leave their rank, by layer."""
    for layer, slots_DS in slots.items():
        yield from rows_at(header, {"moved_experts": num_moved(slots_DS, header.num_experts)}, layer=layer)
