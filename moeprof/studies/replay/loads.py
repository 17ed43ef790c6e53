"""Loads of experts for placements: from a routing trace, or from a count table."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from moeprof.analysis.placement.balance_rows import BalanceInputs
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import LoadMatrix, layer_matrices, rank_of_rows
from moeprof.analysis.routing.regroup import in_steps_of, together, with_steps
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import ALL, PREFILL, PhaseChoice, TraceSource
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.formats import NO_OPTIONS
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.studies.replay.checks import check_matrices
from moeprof.studies.replay.source import Content, ReplaySource, Selection, read, selected, source_of


@dataclass(frozen=True)
class ReplayLoads:
    """Loads with the description of their source for `run.json`."""

    trace: TraceSource
    inputs: BalanceInputs
    notes: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    """Why a replay of the loads is invalid; empty if it is valid."""
    tokens_per_step: Sequence[int] = ()
    """As in `BalanceRequest`."""


def read_loads(
    path: Path,
    phase: PhaseChoice = "all",
    variant: str | None = None,
    expert_bytes: int | None = None,
    token_bytes: int | None = None,
    options: ImportOptions = NO_OPTIONS,
    tokens_per_step: Sequence[int] = (),
    content: Content | None = None,
) -> ReplayLoads:
    """The loads in `path`; UsageError if it cannot be read or lacks the phase, or if no phase has the tokens for two steps.

    `content` is what has been read from the path already.
    """
    if token_bytes is not None and token_bytes < 1:
        raise UsageError(f"--token-bytes {token_bytes}: must be at least 1", "Give the bytes of one token's hidden state.")
    file, run = content or read(path, loads_only=True, options=options)
    if file.counts is not None and tokens_per_step:
        given = ",".join(map(str, tokens_per_step))
        raise UsageError(f"--tokens-per-step {given}: {path} holds counts, and no tokens", "Remove --tokens-per-step.")
    loads = (
        loads_of_trace(source_of(selected(file, run, path, phase, variant, options), phase, expert_bytes), tokens_per_step)
        if file.counts is None
        else loads_of_counts(file.counts, file.name, path, phase, options)
    )
    if file.counts is not None and file.report is not None:
        loads = replace(loads, notes=[*file.report.lines, *loads.notes])
    check_matrices(loads.inputs.layers.values(), path)
    if token_bytes is None:
        return loads
    return replace(loads, trace=loads.trace.model_copy(update={"token_bytes": token_bytes}))


def loads_of_trace(source: ReplaySource, tokens_per_step: Sequence[int] = ()) -> ReplayLoads:
    """Loads of a routing trace."""
    notes = [note for note in source.notes if "--expert-bytes" not in note]
    inputs = inputs_of_trace(source.selection, tokens_per_step)
    if tokens_per_step and not any(inputs.layers.values()):
        tokens = tokens_per_step[0]
        raise UsageError(
            f"--tokens-per-step {tokens}: no domain of {source.trace.path} has {tokens:,} tokens in one phase",
            "Give a smaller number, or a longer trace.",
        )
    return ReplayLoads(source.trace, inputs, notes, source.selection.reasons, tokens_per_step)


def inputs_of_trace(chosen: Selection, tokens_per_step: Sequence[int] = ()) -> BalanceInputs:
    """Load matrices of every phase; all ranks run every step together, and the prefill of a chat in a log is one step.

    With `tokens_per_step` the steps have so many tokens instead; the matrices for its further numbers come along.
    """
    first, *others = tokens_per_step or [0]
    ranks = {phase: stepped(chosen, phase, first) for phase in chosen.traces}
    resized = {
        tokens: {phase: matrices_of(stepped(chosen, phase, tokens), chosen.layers) for phase in chosen.traces}
        for tokens in others
    }
    layers = {phase: matrices_of(traces, chosen.layers) for phase, traces in ranks.items()}
    return BalanceInputs(chosen.variant, layers, ranks, resized)


def stepped(chosen: Selection, phase: str, tokens: int) -> list[RoutingTrace]:
    """The traces of a phase, one per rank, with steps of so many tokens; 0 for the steps that ran."""
    traces = chosen.traces[phase]
    if tokens:
        return in_steps_of(traces, tokens)
    if chosen.file.as_logged and phase == PREFILL:
        return [with_steps(trace, trace.column("sequence")) for trace in traces]
    return traces


def matrices_of(traces: Sequence[RoutingTrace], order: Sequence[str]) -> list[list[LoadMatrix]]:
    """The load matrices of each layer by domain, in the order of the layers."""
    found = {found[0].layer: found for found in layer_matrices(together(traces), rank_R=rank_of_rows(traces))}
    return [found[layer] for layer in order if layer in found]


def loads_of_counts(table: ChoiceCounts, name: str, path: Path, phase: PhaseChoice, options: ImportOptions) -> ReplayLoads:
    """Loads of counts that have been read from `path`, in the phase `all`; without steps, every domain is one."""
    if phase != ALL:
        raise UsageError(f"--phase {phase}: a count table has no phases", "Remove --phase.")
    inputs = inputs_of_counts(table)
    trace, notes = described_counts(table, name, path, inputs, options)
    if len(table.counts) < 2 and table.num_steps < 2:
        notes.append("placements are computed and judged on the same totals: no held-out steps (give several steps or domains)")
    return ReplayLoads(trace, inputs, notes)


def described_counts(
    table: ChoiceCounts, name: str, path: Path, inputs: BalanceInputs, options: ImportOptions
) -> tuple[TraceSource, list[str]]:
    """A count table as `run.json` describes it, and what cannot be right in it."""
    layers = [matrices[0].layer for matrices in inputs.layers[ALL]]
    trace = TraceSource(
        name=name,
        path=str(path),
        workload="lm",
        num_experts=table.num_experts,
        top_k=table.top_k or 1,
        top_k_known=table.top_k is not None,
        layers=layers,
        decisions=digest_of(table),
        options=options,
    )
    empty = [str(layer) for layer in table.layers if str(layer) not in layers]
    notes = [f"no choices counted in layer {', '.join(empty)}, so it is left out"] if empty else []
    if table.top_k is None:
        notes.append("choices of a token not stated: tokens are counted as choices (set --top-k K)")
    return trace, [*notes, *table.remarks]


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
