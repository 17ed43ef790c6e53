"""Counts of experts from the choices of tokens."""

from collections.abc import Sequence

import numpy as np

from moeprof.records.arrays import Ints
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.routing_trace import RoutingTrace


def counted(traces: Sequence[RoutingTrace]) -> ChoiceCounts:
    """How often each expert was chosen by domain and layer, over all phases, steps and ranks; dropped choices are not counted.

    ValueError if the traces are of different models, have no choices, or their layers have no absolute numbers.
    """
    shapes = {(trace.header.num_experts, trace.header.top_k) for trace in traces if len(trace)}
    if len(shapes) != 1:
        raise ValueError("traces of different models" if shapes else "no choices in it")
    ((num_experts, top_k),) = shapes
    names = list(dict.fromkeys(layer for trace in traces for layer in trace.header.layers))
    if named := [name for name in names if not name.isdecimal()]:
        raise ValueError(f"layer {named[0]} has no absolute number, because the model has two stacks of layers")
    domains = list(dict.fromkeys(domain for trace in traces if len(trace) for domain in trace.names("domain")))
    total_DLE = np.zeros((len(domains), len(names), num_experts), np.int64)
    for trace in traces:
        total_DLE += one_trace(trace, domains, names, num_experts)
    if not total_DLE.any():
        raise ValueError("no choices in it")
    used_D = total_DLE.sum(axis=(1, 2)) > 0
    order = sorted(range(len(names)), key=lambda place: int(names[place]))
    counts = {domain: total_DLE[place, order][None] for place, domain in enumerate(domains) if used_D[place]}
    return ChoiceCounts([int(names[place]) for place in order], counts, top_k)


def one_trace(trace: RoutingTrace, domains: Sequence[str], layers: Sequence[str], num_experts: int) -> Ints:
    """Counts (D, L, E) of one trace."""
    kept_R = ~trace.column("dropped")
    place_R = np.zeros(int(kept_R.sum()), np.int64)
    for column, order in (("domain", domains), ("layer", layers)):
        code_R, names = trace.codes(column)
        places = np.array([order.index(name) if name in order else -1 for name in names], np.int64)
        place_R = place_R * len(order) + places[code_R[kept_R]]
    flat = np.bincount(
        place_R * num_experts + trace.column("expert")[kept_R], minlength=len(domains) * len(layers) * num_experts
    )
    return flat.reshape(len(domains), len(layers), num_experts)
