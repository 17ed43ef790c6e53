"""Hits and misses of a buffered run: from its log of expert loads to rows of `metrics.csv`.

Shape suffix: N uses.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from moeprof.records.arrays import Flags
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.run.run import Run
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.traces.routing_trace import RoutingTrace


def expert_load_rows(run: Run) -> Iterator[Samples]:
    """The rows of every buffered variant in every phase; at the points of a sweep over slots those of all domains only."""
    for (phase, variant, point), loads in run.loads.groups("phase", "variant", "point"):
        at = MetricRow("", 0, run.record.workload, phase, variant=variant, point=point, forced=run.record.ran.forced)
        yield from ((row, []) for row in residency_rows(loads, at) if not (point and row.domain))


def residency_rows(loads: ExpertLoads, at: MetricRow) -> Iterator[MetricRow]:
    """`expert_accesses`, `compulsory_misses`, `misses`, `miss_rate`, `bytes_loaded`, and the `worst_miss_rate` of any layer.

    `loads` are those of one phase and variant on all ranks, from cold caches. There is a row for every layer and domain, and over
    them; `at` gives the other cells.
    """
    layers, domains = loads.column("layer"), loads.column("domain")
    missed_N, bytes_N, first_N = ~loads.column("hit"), loads.column("bytes"), first_uses(loads)
    worst = 0.0
    names = list(dict.fromkeys(domains))
    for layer in ("", *dict.fromkeys(layers)):
        for domain in ("", *(names if len(names) > 1 else ())):
            here_N = (layers == layer if layer else True) & (domains == domain if domain else np.ones(len(layers), bool))
            if not here_N.any():
                continue
            own, misses = replace(at, layer=layer, domain=domain), int(missed_N[here_N].sum())
            rate = misses / int(here_N.sum())
            worst = max(worst, rate if layer else 0.0)
            yield replace(own, metric="expert_accesses", value=int(here_N.sum()))
            yield replace(own, metric="compulsory_misses", value=int(first_N[here_N].sum()))
            yield replace(own, metric="misses", value=misses)
            yield replace(own, metric="miss_rate", value=rate)
            yield replace(own, metric="bytes_loaded", value=int(bytes_N[here_N].sum()))
    if len(loads):
        yield replace(at, metric="worst_miss_rate", value=worst)


def first_uses(loads: ExpertLoads) -> Flags:
    """Whether a rank uses an expert of a layer for the first time, (N,)."""
    keys = np.stack([np.unique(loads.column(name), return_inverse=True)[1] for name in ("rank", "layer", "expert")])
    first_N = np.zeros(len(loads), bool)
    first_N[np.unique(keys, axis=1, return_index=True)[1]] = True
    return first_N


def with_residency(trace: RoutingTrace, loads: ExpertLoads) -> RoutingTrace:
    """The trace with a residency for each choice: hit or miss, null if all experts of its layer are resident."""
    if not len(loads):
        return trace
    uses = zip(*(loads.column(name).tolist() for name in ("layer", "step", "expert", "hit")), strict=True)
    known = {(layer, step, expert): int(hit) for layer, step, expert, hit in uses}
    codes_R, names = trace.codes("layer")
    routings = zip(codes_R.tolist(), trace.column("step").tolist(), trace.column("expert").tolist(), strict=True)
    found = pa.array([known.get((names[code], step, expert)) for code, step, expert in routings], pa.int8())
    at = trace.table.schema.get_field_index("residency")
    return RoutingTrace(trace.header, trace.table.set_column(at, trace.table.schema.field(at), found))
