"""Loads of experts that placements are made from and judged on: of a routing trace, or of published counts."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, rank_of_rows
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import ALL, PREFILL, Choice, TraceSource
from moeprof.records.traces.count_table import CountTable
from moeprof.records.traces.routing_trace import RoutingTrace, joined
from moeprof.studies.replay.source import Source, read_source

COUNTS = ".json"
"""How the name of a file of counts ends."""


@dataclass(frozen=True)
class Loads:
    """By phase, then by layer in the order of execution, then by domain."""

    trace: TraceSource
    variant: str
    layers: dict[str, list[list[LoadMatrix]]]
    ranks: dict[str, list[RoutingTrace]] = field(default_factory=dict)
    """By phase; empty where nobody knows which token chose."""
    notes: list[str] = field(default_factory=list)


def read_loads(
    path: Path,
    phase: Choice = "all",
    variant: str | None = None,
    expert_bytes: int | None = None,
    token_bytes: int | None = None,
) -> Loads:
    """What is to be replayed of `path`; UsageError where it cannot be read or has no such phase."""
    found = (
        loads_of_counts(path, phase)
        if path.suffix == COUNTS
        else loads_of_trace(read_source(path, phase, variant, expert_bytes))
    )
    if token_bytes is not None:
        if token_bytes < 1:
            raise UsageError(f"--token-bytes {token_bytes}: a token has values", "Give the bytes of one token's hidden state.")
        found = Loads(
            found.trace.model_copy(update={"token_bytes": token_bytes}), found.variant, found.layers, found.ranks, found.notes
        )
    return found


def loads_of_trace(source: Source) -> Loads:
    """All ranks take every step together; prefill tokens of a log ran in one step."""
    ranks = {
        phase: [in_one_step(trace) if source.as_logged and phase == PREFILL else trace for trace in traces]
        for phase, traces in source.traces.items()
    }
    layers = {}
    for phase, traces in ranks.items():
        found = {found[0].layer: found for found in layer_matrices(together(traces), rank_R=rank_of_rows(traces))}
        layers[phase] = [found[layer] for layer in source.trace.layers if layer in found]
    notes = [note for note in source.notes if "--expert-bytes" not in note]
    return Loads(source.trace, source.variant, layers, ranks, notes)


def in_one_step(trace: RoutingTrace) -> RoutingTrace:
    """The same decisions, taken at once."""
    at = trace.table.schema.get_field_index("step")
    steps = pa.array(np.zeros(len(trace), np.int32))
    return RoutingTrace(trace.header, trace.table.set_column(at, trace.table.schema.field(at), steps))


def together(traces: list[RoutingTrace]) -> RoutingTrace:
    """One trace of all ranks, whose layers are those of any of them."""
    layers = list(dict.fromkeys(layer for trace in traces for layer in trace.header.layers))
    return joined(traces[0].header.model_copy(update={"layers": layers}), [trace.table for trace in traces])


def loads_of_counts(path: Path, phase: Choice) -> Loads:
    """Every domain is one step of a phase that nobody named."""
    if phase != ALL:
        raise UsageError(f"--phase {phase}: counts know no phases", "Leave it away.")
    table = CountTable.read(path)
    names = [str(layer) for layer in table.layers]
    layers = [
        [
            matrix_of_counts(name, domain, np.array(rows[index])[:, None], table.top_k)
            for domain, rows in table.counts.items()
            if any(rows[index])
        ]
        for index, name in enumerate(names)
    ]
    silent = [name for name, matrices in zip(names, layers, strict=True) if not matrices]
    trace = TraceSource(
        name=path.stem,
        path=str(path),
        workload="lm",
        num_experts=table.num_experts,
        top_k=table.top_k,
        layers=[name for name in names if name not in silent],
        decisions={"counts": table.digest},
    )
    if len(table.counts) < 2:
        raise UsageError(f"counts {path}: one domain cannot place and judge", "Give counts of two domains, or a routing trace.")
    notes = [f"no choice was counted of layer {', '.join(silent)}, so it is not placed"] if silent else []
    return Loads(trace, "counts", {ALL: [matrices for matrices in layers if matrices]}, notes=notes)
