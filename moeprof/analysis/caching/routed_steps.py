"""The steps of a routing trace, layer by layer, as an offloading system is asked about them.

Steps and their order are those of accesses.py: neighbouring prefill steps of a sequence in a log ran together. T tokens, K choices,
R rows of the traces.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from moeprof.analysis.caching.accesses import renamed, times
from moeprof.records.arrays import Floats, Ints
from moeprof.records.run.replay import PREFILL
from moeprof.records.traces.routing_trace import RoutingTrace


class RoutedStep(NamedTuple):
    """What the router of one layer decided in one step."""

    phase: str
    domain: str
    """That of the first token."""
    layer: int
    """Its place in the order of execution."""
    time: int
    """The number of the step in the whole trace."""
    experts_TK: Ints
    """The number of experts where a choice does not count, because a log says that it was dropped."""
    weights_TK: Floats


def routed_steps(
    traces: Mapping[str, RoutingTrace], layers: Sequence[str], *, as_logged: bool, shared_steps: bool
) -> Iterator[RoutedStep]:
    """The steps in order of execution; `traces` by phase, `layers` in order of execution; other arguments as in `stream_of`."""
    phases = list(traces)
    layer_R, _ = renamed([trace.codes("layer") for trace in traces.values()], layers)
    domain_R, domains = renamed([trace.codes("domain") for trace in traces.values()])
    phase_R = np.concatenate([np.full(len(trace), index) for index, trace in enumerate(traces.values())])
    step_R, expert_R, sequence_R, position_R, slot_R, dropped_R = (
        np.concatenate([trace.column(name).astype(np.int64) for trace in traces.values()])
        for name in ("step", "expert", "sequence", "position", "slot", "dropped")
    )
    weight_R = np.concatenate([trace.column("weight").astype(np.float64) for trace in traces.values()])
    prefill_R = phase_R == phases.index(PREFILL) if as_logged and PREFILL in phases else np.zeros(len(phase_R), bool)
    time_R = times(step_R, phase_R, prefill_R, sequence_R, shared=as_logged or shared_steps)
    if as_logged:
        expert_R = np.where(dropped_R > 0, next(iter(traces.values())).header.num_experts, expert_R)
    order_R = np.lexsort((slot_R, position_R, sequence_R, layer_R, time_R))
    key_R = (time_R * len(layers) + layer_R)[order_R]
    starts = np.flatnonzero(np.append(True, np.diff(key_R) != 0))
    for first, last in zip(starts, [*starts[1:], len(key_R)], strict=True):
        rows, row = order_R[first:last], order_R[first]
        phase = phases[phase_R[row]]
        shape = (-1, traces[phase].header.top_k)
        yield RoutedStep(
            phase,
            domains[domain_R[row]],
            int(layer_R[row]),
            int(time_R[row]),
            expert_R[rows].reshape(shape),
            weight_R[rows].reshape(shape),
        )
