"""What a placement promises on steps that it was not made from, and what its deployment moves.

Shape suffix: B steps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from moeprof.analysis.comparison.output_agreement import variants_without_speedup
from moeprof.analysis.placement.device_load import floor_shares, load_values, over_layers
from moeprof.analysis.placement.trial import Placed, Trial, num_moved, trial_of
from moeprof.analysis.routing.capacity import first_judged_steps
from moeprof.analysis.routing.layer_rows import rows_at
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, rank_of_rows
from moeprof.analysis.routing.trace_rows import traces_by_variant
from moeprof.analysis.timing.timing import summed, timings_of
from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.contiguous import CONTIGUOUS
from moeprof.records.arrays import Floats
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.placement import Placement
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import MOVES, TIME
from moeprof.records.run.run import Run
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader, joined


def placement_rows(run: Run) -> Iterator[Samples]:
    """What every deployed placement promises on the judged steps, and what its deployment moved."""
    moves = moves_of(run)
    for (phase, label), traces in traces_by_variant(run).items():
        variant = run.record.variants_by_label[label]
        if not variant.placed or (phase, label) not in moves:
            continue
        trial = trial_over_ranks(history_traces(run, phase, variant), first_judged_steps(run, phase))
        yield from ((row, []) for row in placed_rows(traces[0].header, trial, run.placement(phase, label)))
        at = MetricRow("moved_bytes", 0, run.record.workload, phase, variant=label, forced=run.record.ran.forced)
        received_bytes, time_ns = moves[phase, label]
        yield replace(at, value=received_bytes), []
        yield replace(at, metric="move_time", value=time_ns), []


def moves_of(run: Run) -> dict[tuple[str, str], tuple[int, int]]:
    """By phase and variant: bytes that all ranks received, and nanoseconds until the slowest rank had its experts."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for row in run.raw(MOVES).to_pylist():
        received_bytes, time_ns = found.get((row["phase"], row["variant"]), (0, 0))
        found[row["phase"], row["variant"]] = received_bytes + row["received_bytes"], max(time_ns, row["time_ns"])
    return found


def history_traces(run: Run, phase: str, variant: Variant) -> list[RoutingTrace]:
    """The traces that a placement was made from: of the same variant without it, or else of the baseline."""
    traces = traces_by_variant(run)
    return traces.get((phase, variant.unplaced.label)) or traces[phase, run.record.routed_labels[0]]


def payoff_rows(run: Run) -> Iterator[Samples]:
    """`payoff_steps` of every placement that makes steps shorter: steps after which its deployment has paid off."""
    latencies = {
        (phase, timing.variant): median(timing.latencies_ns)
        for (phase, _), timings in timings_of(run, TIME).items()
        for timing in summed(timings)
    }
    for (phase, label), (_, move_ns) in moves_of(run).items():
        before = latencies.get((phase, run.record.variants_by_label[label].unplaced.label))
        after = latencies.get((phase, label))
        if before and after and before > after and move_ns and label not in variants_without_speedup(run, phase):
            yield MetricRow("payoff_steps", move_ns / (before - after), run.record.workload, phase, variant=label), []


def trial_over_ranks(traces: Sequence[RoutingTrace], starts: Mapping[str, int]) -> Trial:
    """The trial of one phase; `traces` are one of each rank, `starts` is each domain's first test step."""
    everyone = joined(traces[0].header, [trace.table for trace in traces])
    layers: list[list[LoadMatrix]] = list(layer_matrices(everyone, rank_R=rank_of_rows(traces)))
    return trial_of(layers, starts)


def from_step(trace: RoutingTrace, starts: Mapping[str, int]) -> RoutingTrace:
    """The part of a trace from each domain's first test step on."""
    code_R, domains = trace.codes("domain")
    first = np.array([starts.get(domain, 0) for domain in domains], np.int64)
    keep_R = trace.column("step") >= first[code_R] if len(trace) else np.zeros(0, bool)
    return RoutingTrace(trace.header, trace.table.filter(keep_R))


def placed_rows(header: TraceHeader, trial: Trial, placement: Placement) -> Iterator[MetricRow]:
    """Gain over contiguous placement, floors, steps, slots and moves, of the layers that can be judged; nothing if none can.

    `header` is that of the placed variant's trace.
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
    """The bound that no placement without copies can pass, by layer and over them."""
    layers = {layer: {f"{name}_floor": at for name, at in load_values(top_B).items()} for layer, top_B in floor_B.items()}
    for layer, values in layers.items():
        yield from rows_at(header, values, layer=layer)
    means = over_layers(list(layers.values()))
    yield from rows_at(header, {name: means[name] for name in next(iter(layers.values()))})


def moves(header: TraceHeader, slots: Placed) -> Iterator[MetricRow]:
    """Experts that change their rank, by layer."""
    for layer, slots_DS in slots.items():
        yield from rows_at(header, {"moved_experts": num_moved(slots_DS, header.num_experts)}, layer=layer)
