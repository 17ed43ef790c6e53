"""The trace that a replay reads: a run directory, or a file in any registered format; checked before it is used."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from moeprof.analysis.caching.accesses import stream_of
from moeprof.analysis.caching.memory_saved import weights_of
from moeprof.analysis.caching.replay_rows import CacheInputs
from moeprof.analysis.caching.reproduction import DifferenceError, buffered_of, reproduced
from moeprof.analysis.comparison.measurement import decisions_of
from moeprof.analysis.model_size import expert_sizes
from moeprof.analysis.routing.analyses import by_variant
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import UsageError
from moeprof.records.name import name_from
from moeprof.records.recipe.model import router_groups
from moeprof.records.run.raw_tables import STEPS
from moeprof.records.run.replay import ALL, DECODE, PHASES, PREFILL, PhaseChoice, TraceSource
from moeprof.records.run.run import Run
from moeprof.records.traces.formats import NO_OPTIONS, check_tokens, read_trace_file, remedy
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile
from moeprof.studies.replay.checks import check_ranks, check_shapes

REPLAYED_AS = {"score": PREFILL, "encode": PREFILL, "prefill": PREFILL, "decode": DECODE}
"""The phase of the replay for each phase of a run: whole sequences in a step, or one token of each."""


Content = tuple[TraceFile, Run | None]
"""What a path holds, and the run that recorded it if it is known."""


@dataclass(frozen=True)
class Selection:
    """The part of a file or run that is replayed: one variant, and one phase or all of them."""

    path: Path
    file: TraceFile
    run: Run | None
    """The run that recorded the traces, if it is known."""
    variant: str
    traces: dict[str, list[RoutingTrace]]
    """By phase of the replay, one per rank."""
    options: ImportOptions
    """What the user stated about the file."""

    @property
    def layers(self) -> list[str]:
        """Layers that have rows, in the order of execution."""
        headers = dict.fromkeys(layer for ranks in self.traces.values() for trace in ranks for layer in trace.header.layers)
        rows = {layer for ranks in self.traces.values() for trace in ranks for layer in trace.names("layer")}
        return sorted((layer for layer in headers if layer in rows), key=execution_order)

    @property
    def decisions(self) -> dict[str, str]:
        """SHA-256 of the decisions, by phase and variant as recorded."""
        return decisions_of(one for ranks in self.traces.values() for one in ranks)

    @property
    def reasons(self) -> list[str]:
        """Why a replay of the traces is invalid: as the run that recorded them."""
        invalid = self.run is not None and not self.run.record.valid
        return [f"the replayed run is invalid: {why}" for why in self.run.record.reasons] if self.run and invalid else []

    @property
    def cache_inputs(self) -> CacheInputs:
        """What the rows of a replay of caches are derived from."""
        return CacheInputs(
            self.variant,
            stream_of(self.traces, self.layers, as_logged=self.file.as_logged, shared_steps=self.file.shared_steps),
        )


@dataclass(frozen=True)
class ReplaySource:
    """A selection with its description for `run.json`."""

    trace: TraceSource
    selection: Selection
    notes: list[str] = field(default_factory=list)


def read_source(
    path: Path,
    phase: PhaseChoice = "all",
    variant: str | None = None,
    expert_bytes: int | None = None,
    options: ImportOptions = NO_OPTIONS,
    content: Content | None = None,
) -> ReplaySource:
    """What a replay reads from `path`; UsageError if it cannot be read, is inconsistent, or lacks the phase or variant.

    `expert_bytes` replaces the size of an expert that the run's recipe or the file states; `content` is what has been read from the
    path already.
    """
    return source_of(selected(*(content or read(path, options=options)), path, phase, variant, options), phase, expert_bytes)


def source_of(chosen: Selection, phase: PhaseChoice, expert_bytes: int | None) -> ReplaySource:
    """A selection with its description and remarks; arguments and UsageError as in `read_source`."""
    notes = reproductions(chosen.run, chosen.path) if chosen.run else []
    trace = described(chosen, expert_bytes)
    return ReplaySource(trace, chosen, [*notes, *remarks(chosen, trace, phase)])


def select(
    path: Path, phase: PhaseChoice = "all", variant: str | None = None, options: ImportOptions = NO_OPTIONS
) -> Selection:
    """The traces of one variant in `path`, by phase; UsageError as in `read_source`."""
    return selected(*read(path, options=options), path, phase, variant, options)


def selected(
    file: TraceFile, run: Run | None, path: Path, phase: PhaseChoice, variant: str | None, options: ImportOptions
) -> Selection:
    """The traces of one variant of a file that has been read from `path`."""
    if options.experts is not None:
        file = with_experts(file, options.experts, path)
    traces, label = of_variant(file.traces, variant, path)
    return Selection(path, file, run, label, by_phase(traces, phase, path), options)


def with_experts(file: TraceFile, experts: int, path: Path) -> TraceFile:
    """The file with a number of experts in place of a guess; UsageError if the file has more, or states another number."""
    known = max((trace.header.num_experts for trace in file.traces), default=experts)
    if experts != known and not file.experts_guessed:
        raise UsageError(f"--experts {experts}: the trace {path} states {known} experts", "Remove --experts.")
    if experts < known:
        raise UsageError(
            f"--experts {experts}: expert {known - 1} occurs in the trace {path}", f"Give a number of at least {known}."
        )
    headers = [trace.header.model_copy(update={"num_experts": experts}) for trace in file.traces]
    traces = [RoutingTrace(header, trace.table) for header, trace in zip(headers, file.traces, strict=True)]
    return replace(file, traces=traces, experts_guessed=False)


def read(path: Path, *, loads_only: bool = False, options: ImportOptions = NO_OPTIONS) -> Content:
    """The traces of a run directory or of a file, and the run that recorded them if it is known; it is read once.

    With `loads_only` a file that holds loads and no choices is accepted too.
    """
    run = owner_of(path)
    if path.is_dir() and run and run.record.recipe is None:
        raise UsageError(f"run {path}: it ran no model and has no trace of its own", "Give the trace that it read.")
    file = read_traces_of(run) if run and path.is_dir() else read_trace_file(path, loads_only=loads_only, options=options)
    if run is None or run.record.recipe is None:
        return file, None
    check_shapes(file.traces, run.record.recipe, path)
    sizes = expert_sizes(run.record.ran.model)
    layers = dict.fromkeys(layer for trace in file.traces for layer in trace.header.layers)
    return replace(file, name=run.record.name, expert_bytes={layer: sizes[layer] for layer in layers}), run


def read_traces_of(run: Run) -> TraceFile:
    """The traces of all phases, variants and ranks of a run; UsageError if a token's choices or a rank's traces are not complete."""
    check_tokens(run.traces, run.path)
    steps = run.raw(STEPS)
    recorded = zip(steps["phase"].to_pylist(), steps["variant"].to_pylist(), strict=True)
    check_ranks(run.traces, run.record.ran.parallel.ranks, run.path, recorded)
    return TraceFile(run.record.name, run.traces)


def owner_of(path: Path) -> Run | None:
    """The run in a directory, or the run whose `routing/` folder holds a file."""
    if path.is_dir():
        return Run.open(path) if (path / "run.json").is_file() else None
    folder = path.absolute().parent
    in_run = folder.name == "routing" and (folder.parent / "run.json").is_file()
    return Run.open(folder.parent) if in_run else None


def described(chosen: Selection, expert_bytes: int | None) -> TraceSource:
    """The trace as `run.json` describes it."""
    run, header = chosen.run, next(iter(chosen.traces.values()))[0].header
    model = run.record.ran.model if run else None
    return TraceSource(
        name=name_from(re.sub(r"[^\w.+-]+", "_", chosen.file.name), "trace"),  # it becomes the name of a folder
        path=str(chosen.path),
        workload=header.workload,
        num_experts=header.num_experts,
        top_k=header.top_k,
        layers=chosen.layers,
        decisions=chosen.decisions,
        forced=header.forced,
        expert_bytes=sizes_of(chosen, expert_bytes),
        step_ns=step_times(run, chosen) if run else {},
        token_bytes=model.dim * model.bytes_per_element if model else None,
        weights_hash=run.record.weights_hash if run else "",
        groups=router_groups(model, chosen.layers) if model else 0,
        options=chosen.options,
        **(weights_of(model) if model and not expert_bytes else {}),
    )


def reproductions(run: Run, path: Path) -> list[str]:
    """A note for every buffered variant of a run whose hits a replay reproduces one by one; UsageError if it does not."""
    notes, recorded = [], by_variant(run.traces)
    for buffered in filter(None, map(buffered_of, run.record.variants)):
        counts = []
        for (phase,), loads in run.loads.of(variant=buffered.label, point="").groups("phase"):
            ranks = recorded.get((phase, buffered.label), [])
            try:
                counts.append(f"{reproduced(loads, ranks, buffered, run.placement(phase, buffered.label)):,} in {phase}")
            except DifferenceError as error:
                raise UsageError(
                    f"run {path}: a replay does not reproduce what {buffered.label} did in {phase}: {error}",
                    "Either files of different runs are mixed, or this is a bug in moeprof; other slots or policies are not replayed.",
                ) from error
        if counts:
            notes.append(
                f"{buffered.label} ({buffered.eviction}, {buffered.slots} slots): the replay reproduces every hit and miss of the "
                f"run, expert by expert ({' and '.join(counts)})"
            )
    return notes


def sizes_of(chosen: Selection, expert_bytes: int | None) -> dict[str, int]:
    """Bytes of an expert in every layer, as given or as the file states; {} if neither, UsageError if only some are known."""
    if expert_bytes is not None:
        if expert_bytes < 1:
            raise UsageError(f"--expert-bytes {expert_bytes}: must be at least 1", "Give the bytes of one expert.")
        return dict.fromkeys(chosen.layers, expert_bytes)
    known = {layer: size for layer in chosen.layers if (size := chosen.file.expert_bytes.get(layer))}
    if known and (unknown := [layer for layer in chosen.layers if layer not in known]):
        raise UsageError(f"trace {chosen.path}: expert size of layer {unknown[0]} unknown", "Set --expert-bytes SIZE.")
    return known


def step_times(run: Run, chosen: Selection) -> dict[str, float]:
    """Latency of a step in each replayed phase, in ns over all domains; phases that the run did not time are left out."""
    timed = RunMetrics.of(run).at(variant=chosen.variant)
    found = {phase: timed.or_none("step_latency", phase=ranks[0].header.phase) for phase, ranks in chosen.traces.items()}
    return {phase: time for phase, time in found.items() if time is not None}


def of_variant(traces: Sequence[RoutingTrace], wanted: str | None, path: Path) -> tuple[list[RoutingTrace], str]:
    """The traces of one variant and its label: the wanted one, or else static gating, or else the first one with rows."""
    labels = list(dict.fromkeys(trace.header.variant for trace in traces if len(trace)))
    if not labels:
        raise UsageError(f"trace {path}: no choices in it", remedy())
    label = wanted or ("static" if "static" in labels else labels[0])
    if label not in labels:
        raise UsageError(f"trace {path}: no variant {label!r}", f"Its variants: {', '.join(labels)}.")
    return [trace for trace in traces if len(trace) and trace.header.variant == label], label


def by_phase(traces: Sequence[RoutingTrace], phase: PhaseChoice, path: Path) -> dict[str, list[RoutingTrace]]:
    """Traces of the phases to replay, prefill first."""
    found: dict[str, list[RoutingTrace]] = {name: [] for name in PHASES}
    for trace in traces:
        name = REPLAYED_AS.get(trace.header.phase)
        if name is None:
            raise UsageError(
                f"trace {path}: unknown phase {trace.header.phase!r}", f"Give a trace with phases {', '.join(REPLAYED_AS)}."
            )
        found[name].append(trace)
    kept = {name: ranks for name, ranks in found.items() if ranks and phase in (ALL, name)}
    if not kept:
        present = ", ".join(name for name, ranks in found.items() if ranks)
        raise UsageError(
            f"trace {path}: no choices in phase {phase}", f"Its phases: {present}; without --phase all are replayed."
        )
    models = {(trace.header.num_experts, trace.header.workload) for ranks in kept.values() for trace in ranks}
    if len(models) > 1:
        raise UsageError(f"trace {path}: its phases come from different models", "Replay one phase at a time, with --phase.")
    return kept


def execution_order(layer: str) -> tuple[bool, int, str]:
    """A sorting key: `enc.3` before `dec.3` before `dec.7`; `3` before `12`."""
    stack, _, number = layer.rpartition(".")
    return stack == "dec", int(number) if number.isdecimal() else 0, layer


def remarks(chosen: Selection, trace: TraceSource, phase: PhaseChoice) -> list[str]:
    """Notes on what the trace lacks: layers, phases, expert sizes."""
    preamble = chosen.file.expert_bytes if chosen.file.as_logged else ()
    listed = [*preamble, *(layer for ranks in chosen.traces.values() for one in ranks for layer in one.header.layers)]
    missing = [layer for layer in dict.fromkeys(listed) if layer not in trace.layers]
    notes = [f"no choices recorded in layer {', '.join(missing)}, so it is left out"] if missing else []
    if phase == ALL:
        present = next(iter(chosen.traces))
        notes += [
            f"no {name} steps in the trace: all results are of {present} alone" for name in PHASES if name not in chosen.traces
        ]
    if chosen.run and not chosen.path.is_dir() and (ranks := chosen.run.record.ran.parallel.ranks) > 1:
        rank = next(iter(chosen.traces.values()))[0].header.rank
        notes.append(f"the file holds the choices of rank {rank} alone, of {ranks} ranks of the run")
    notes += missing_steps(chosen)
    reports = (one.header.imported for ranks in chosen.traces.values() for one in ranks)
    notes += dict.fromkeys(line for report in reports if report for line in report.lines)
    if chosen.file.experts_guessed:
        notes.append(
            f"number of experts not stated in the trace: taken as {trace.num_experts} from its highest id (set --experts N)"
        )
    if not trace.expert_bytes:
        notes.append("expert size unknown: bytes, times and memory are omitted (set --expert-bytes SIZE)")
    return notes


def missing_steps(chosen: Selection) -> Iterator[str]:
    """A note for every phase that lacks steps between its first and its last one; in imported traces the phases share their numbers."""
    traces = {phase: [one.table["step"].to_numpy() for one in ranks] for phase, ranks in chosen.traces.items()}
    if chosen.file.shared_steps:
        traces = {"the trace": [one.table["step"].to_numpy() for one in chosen.file.traces]}
    for name, parts in traces.items():
        steps = np.unique(
            np.concatenate([part[np.flatnonzero(np.diff(part, append=-1))] for part in parts])
        )  # few of each step
        if missing := int(steps[-1] - steps[0]) + 1 - len(steps):
            before = int(steps[np.flatnonzero(np.diff(steps) > 1)[0]])
            yield f"steps missing in {name}: {missing}, the first after step {before}; the others are replayed"
