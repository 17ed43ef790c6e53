"""Characterizes a recorded trace of any engine, or a count table, without a model, and leaves a run directory with what it used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from moeprof.analysis.placement.balance_rows import BalanceInputs
from moeprof.analysis.routing.characterization import characterization_rows
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.instrument.machine import host
from moeprof.records.run.raw_tables import EXPERT_COUNTS
from moeprof.records.run.replay import ALL, TraceRequest
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.formats import NO_OPTIONS, read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.replay.loads import described_counts, inputs_of_counts, stepped
from moeprof.studies.replay.source import read, selected, source_of


@dataclass(frozen=True)
class RecordedRouting:
    """What is characterized, with its description for `run.json`."""

    request: TraceRequest
    traces: Sequence[RoutingTrace] = ()
    """One per phase and rank; empty for counts."""
    counts: BalanceInputs | None = None
    notes: Sequence[str] = ()
    reasons: Sequence[str] = ()
    """Why the numbers are invalid; empty if they are valid."""


def read_recorded(paths: Sequence[Path], variant: str | None = None, options: ImportOptions = NO_OPTIONS) -> RecordedRouting:
    """One variant of the traces, or the counts, in the files of one recording; UsageError as for a replay."""
    path = paths[0]
    if len(paths) == 1:
        file, run = read(path, loads_only=True, options=options)
    else:
        file, run = read_recording(paths, loads_only=True, options=options), None
    if file.counts is not None:
        inputs = inputs_of_counts(file.counts)
        trace, notes = described_counts(file.counts, file.name, path, inputs, options)
        doubt = file.report.order_doubt if file.report else ""
        request = TraceRequest(trace=trace, variant=inputs.variant, counts_only=True, order_doubt=doubt)
        return RecordedRouting(request, counts=inputs, notes=[*notes, *(file.report.lines if file.report else ())])
    found = source_of(selected(file, run, path, "all", variant, options), "all", None)
    chosen = found.selection
    traces = [trace for phase in chosen.traces for trace in stepped(chosen, phase, 0)]
    notes = [note for note in found.notes if "--expert-bytes" not in note]
    return RecordedRouting(TraceRequest(trace=found.trace, variant=chosen.variant), traces, notes=notes, reasons=chosen.reasons)


def characterize_trace(
    recorded: RecordedRouting, out: Path, *, force: bool = False, argv: Sequence[str] = (), progress: Progress | None = None
) -> Run:
    """The finished run in `out`, which holds the choices, without the ids of tokens, or the counts."""
    shown = progress or Silent()
    record = RunRecord(
        command="characterize",
        argv=list(argv),
        characterization=recorded.request,
        environment=host(),
        notes=list(recorded.notes),
    )
    writer = RunWriter(out, record, force=force, derive=lambda run: ((row, []) for row in characterization_rows(run)))
    with writer.guarded():
        shown.stage("routing", len(recorded.traces))
        for trace in recorded.traces:
            writer.add_trace(trace.without_token_ids())
            shown.advance()
        if recorded.counts:
            writer.append(EXPERT_COUNTS, counted(recorded.counts))
        return writer.finish(*recorded.reasons)


def counted(counts: BalanceInputs) -> pa.Table:
    """The rows of the raw table of counts."""
    return pa.concat_tables(cells_of(matrix) for matrices in counts.layers[ALL] for matrix in matrices)


def cells_of(matrix: LoadMatrix) -> pa.Table:
    """The cells of one layer and domain."""
    size = len(matrix.count_N)
    columns = {
        "domain": pa.repeat(matrix.domain, size),
        "layer": pa.repeat(matrix.layer, size),
        "step": matrix.steps_B[matrix.column_N],
        "expert": matrix.expert_N,
        "choices": matrix.count_N,
    }
    return pa.table(columns, schema=EXPERT_COUNTS.schema)
