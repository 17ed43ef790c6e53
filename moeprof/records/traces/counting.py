"""Counts of experts from the choices of tokens.

D domains, S steps, L layers, E experts, R rows.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.system.inputs import check_memory
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.routing_trace import RoutingTrace


def counted(traces: Sequence[RoutingTrace], *, by_step: bool = False) -> ChoiceCounts:
    """How often each expert was chosen by domain and layer, over all phases and ranks; dropped choices are not counted.

    Steps are added up, or follow each other phase by phase and are the same for all domains. ValueError if the traces are of different
    models, have no choices, or their layers have no absolute numbers.
    """
    shapes = {(trace.header.num_experts, trace.header.top_k) for trace in traces if len(trace)}
    if len(shapes) != 1:
        raise ValueError("traces of different models" if shapes else "no choices in it")
    ((num_experts, top_k),) = shapes
    names = list(dict.fromkeys(layer for trace in traces for layer in trace.header.layers))
    if named := [name for name in names if not name.isdecimal()]:
        raise ValueError(f"layer {named[0]} has no absolute number, because the model has two stacks of layers")
    domains = list(dict.fromkeys(domain for trace in traces if len(trace) for domain in trace.names("domain")))
    steps = steps_of(traces) if by_step else {}
    shape = (len(domains), max(sum(map(len, steps.values())), 1), len(names), num_experts)
    check_memory(math.prod(shape) * 16)
    total_DSLE = np.zeros(shape, np.int64)
    for trace in traces:
        total_DSLE += one_trace(trace, domains, names, steps, shape)
    if not total_DSLE.any():
        raise ValueError("no choices in it")
    used_D = total_DSLE.sum(axis=(1, 2, 3)) > 0
    order = sorted(range(len(names)), key=lambda place: int(names[place]))
    counts = {domain: total_DSLE[place][:, order] for place, domain in enumerate(domains) if used_D[place]}
    return ChoiceCounts([int(names[place]) for place in order], counts, top_k)


def steps_of(traces: Sequence[RoutingTrace]) -> dict[str, Ints]:
    """The steps of every phase, ascending, (S,); the ranks of a phase take them together."""
    phases = dict.fromkeys(trace.header.phase for trace in traces if len(trace))
    return {
        phase: np.unique(np.concatenate([trace.column("step") for trace in traces if trace.header.phase == phase]))
        for phase in phases
    }


def one_trace(
    trace: RoutingTrace, domains: Sequence[str], layers: Sequence[str], steps: Mapping[str, Ints], shape: tuple[int, ...]
) -> Ints:
    """Counts (D, S, L, E) of one trace."""
    kept_R = ~trace.column("dropped")
    places = []
    for column, order in (("domain", domains), ("layer", layers)):
        code_R, names = trace.codes(column)
        places.append(np.array([order.index(name) if name in order else -1 for name in names], np.int64)[code_R[kept_R]])
    step_R = np.zeros(len(places[0]), np.int64)
    if trace.header.phase in steps:
        before = sum(len(steps[phase]) for phase in list(steps)[: list(steps).index(trace.header.phase)])
        step_R = before + np.searchsorted(steps[trace.header.phase], trace.column("step")[kept_R])
    at_R = np.ravel_multi_index((places[0], step_R, places[1], trace.column("expert")[kept_R]), shape)
    return np.bincount(at_R, minlength=math.prod(shape)).reshape(shape)
