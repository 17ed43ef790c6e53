"""Loads of experts for placements: from a routing trace, or from a count table."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from moeprof.analysis.placement.balance_rows import BalanceInputs
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import layer_matrices, rank_of_rows
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import ALL, PREFILL, PhaseChoice, TraceSource
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.routing_trace import RoutingTrace, joined
from moeprof.studies.replay.checks import check_matrices
from moeprof.studies.replay.source import ReplaySource, Selection, read, selected, source_of


@dataclass(frozen=True)
class ReplayLoads:
    """Loads with the description of their source for `run.json`."""

    trace: TraceSource
    inputs: BalanceInputs
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why a replay of the loads is invalid; empty if it is valid."""


def read_loads(
    path: Path,
    phase: PhaseChoice = "all",
    variant: str | None = None,
    expert_bytes: int | None = None,
    token_bytes: int | None = None,
    experts: int | None = None,
) -> ReplayLoads:
    """The loads in `path`; UsageError if it cannot be read or lacks the phase."""
    if token_bytes is not None and token_bytes < 1:
        raise UsageError(f"--token-bytes {token_bytes}: must be at least 1", "Give the bytes of one token's hidden state.")
    file, run = read(path, loads_only=True)
    loads = (
        loads_of_trace(source_of(selected(file, run, path, phase, variant, experts), phase, expert_bytes))
        if file.counts is None
        else loads_of_counts(file.counts, file.name, path, phase, experts)
    )
    check_matrices(loads.inputs.layers.values(), path)
    if token_bytes is None:
        return loads
    return replace(loads, trace=loads.trace.model_copy(update={"token_bytes": token_bytes}))


def loads_of_trace(source: ReplaySource) -> ReplayLoads:
    """Loads of a routing trace."""
    notes = [note for note in source.notes if "--expert-bytes" not in note]
    return ReplayLoads(source.trace, inputs_of_trace(source.selection), notes, source.selection.reasons)


def inputs_of_trace(chosen: Selection) -> BalanceInputs:
    """Load matrices of every phase; all ranks run every step together, and the prefill of a chat in a log is one step."""
    ranks = {
        phase: [a_step_per_sequence(trace) if chosen.file.as_logged and phase == PREFILL else trace for trace in traces]
        for phase, traces in chosen.traces.items()
    }
    layers, order = {}, chosen.layers
    for phase, traces in ranks.items():
        found = {found[0].layer: found for found in layer_matrices(together(traces), rank_R=rank_of_rows(traces))}
        layers[phase] = [found[layer] for layer in order if layer in found]
    return BalanceInputs(chosen.variant, layers, ranks)


def a_step_per_sequence(trace: RoutingTrace) -> RoutingTrace:
    """The same choices; those of a sequence are one step."""
    at = trace.table.schema.get_field_index("step")
    return RoutingTrace(trace.header, trace.table.set_column(at, trace.table.schema.field(at), trace.table["sequence"]))


def together(traces: list[RoutingTrace]) -> RoutingTrace:
    """One trace of all ranks, with the layers of any of them."""
    layers = list(dict.fromkeys(layer for trace in traces for layer in trace.header.layers))
    return joined(traces[0].header.model_copy(update={"layers": layers}), [trace.table for trace in traces])


def loads_of_counts(table: ChoiceCounts, name: str, path: Path, phase: PhaseChoice, experts: int | None) -> ReplayLoads:
    """Loads of counts that have been read from `path`, in the phase `all`; without steps, every domain is one."""
    if phase != ALL:
        raise UsageError(f"--phase {phase}: a count table has no phases", "Remove --phase.")
    if experts not in (None, table.num_experts):
        raise UsageError(f"--experts {experts}: the count table {path} has {table.num_experts} experts", "Remove --experts.")
    inputs = inputs_of_counts(table)
    layers = [matrices[0].layer for matrices in inputs.layers[ALL]]
    trace = TraceSource(
        name=name,
        path=str(path),
        workload="lm",
        num_experts=table.num_experts,
        top_k=table.top_k or 1,
        layers=layers,
        decisions=digest_of(table),
    )
    if len(table.counts) < 2 and table.num_steps < 2:
        raise UsageError(
            f"count table {path}: one domain cannot both place and validate", "Give counts of two domains, or a routing trace."
        )
    empty = [str(layer) for layer in table.layers if str(layer) not in layers]
    notes = [f"no choices counted in layer {', '.join(empty)}, so it is not placed"] if empty else []
    if table.top_k is None:
        notes.append("choices of a token not stated: tokens are counted as choices (set --top-k K)")
    return ReplayLoads(trace, inputs, [*notes, *table.remarks])


def digest_of(table: ChoiceCounts) -> dict[str, str]:
    """The counts' hash, in the place of the decisions of a trace."""
    return {"counts": table.digest}


def inputs_of_counts(table: ChoiceCounts) -> BalanceInputs:
    """A load matrix for every layer and domain that has choices."""
    layers = [
        [
            matrix_of_counts(str(layer), domain, counts_SLE[:, index].T, table.top_k or 1)
            for domain, counts_SLE in table.counts.items()
            if counts_SLE[:, index].any()
        ]
        for index, layer in enumerate(table.layers)
    ]
    return BalanceInputs("counts", {ALL: [matrices for matrices in layers if matrices]})
