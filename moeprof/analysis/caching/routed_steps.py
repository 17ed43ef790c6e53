"""The steps of a routing trace, layer by layer, as an offloading system is asked about them.

Steps and their order are those of accesses.py: neighbouring prefill steps of a sequence in a log ran together. T tokens, K choices,
R rows of the traces.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from moeprof.analysis.caching.accesses import trace_rows
from moeprof.records.arrays import Floats, Ints
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
    by_phase = {phase: [trace] for phase, trace in traces.items()}
    rows = trace_rows(by_phase, layers, as_logged=as_logged, shared_steps=shared_steps)
    weight_R = np.concatenate([trace.column("weight").astype(np.float64) for trace in rows.traces])
    expert_R = rows.column("expert")
    if as_logged:
        expert_R = np.where(rows.column("dropped") > 0, rows.num_experts, expert_R)
    order_R = np.lexsort([rows.column(name) for name in ("slot", "position", "sequence")] + [rows.layer_R, rows.time_R])
    key_R = (rows.time_R * len(layers) + rows.layer_R)[order_R]
    starts = np.flatnonzero(np.append(True, np.diff(key_R) != 0))
    for first, last in zip(starts, [*starts[1:], len(key_R)], strict=True):
        mine_R, row = order_R[first:last], order_R[first]
        phase = rows.phases[rows.phase_R[row]]
        shape = (-1, traces[phase].header.top_k)
        yield RoutedStep(
            phase,
            rows.domains[rows.domain_R[row]],
            int(rows.layer_R[row]),
            int(rows.time_R[row]),
            expert_R[mine_R].reshape(shape),
            weight_R[mine_R].reshape(shape),
        )
