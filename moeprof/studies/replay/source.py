"""Where a replayed trace comes from: a run directory, a file of its `routing/`, or a route log; checked before it is used."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from moeprof.analysis.caching.memory_saved import weights_of
from moeprof.analysis.caching.reproduction import DifferenceError, buffered_of, reproduced
from moeprof.analysis.comparison.measurement import decisions_of
from moeprof.analysis.model_size import ffn_parameters
from moeprof.analysis.routing.load_matrix import distinct
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import ALL, DECODE, PHASES, PREFILL, Choice, TraceSource
from moeprof.records.run.run import Run
from moeprof.records.traces.route_csv import read_expert_bytes, read_route_csv
from moeprof.records.traces.routing_trace import RoutingTrace

REPLAYED_AS = {"score": PREFILL, "encode": PREFILL, "prefill": PREFILL, "decode": DECODE}
"""A run's phases: whole sequences in a step, or one token of each."""

REMEDY = "Give a run directory, a file of its routing/ folder, or a *.route.csv."


@dataclass(frozen=True)
class Source:
    """A trace that can be replayed."""

    trace: TraceSource
    variant: str
    traces: dict[str, list[RoutingTrace]]
    """By phase of the replay, one per rank."""
    as_logged: bool
    """Whether every token is a step, and experts are in the order in which they were used."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Found:
    """What a path holds, before phases are chosen."""

    name: str
    traces: list[RoutingTrace]
    as_logged: bool = False
    run: Run | None = None
    expert_bytes: dict[str, int] = field(default_factory=dict)


def read_source(path: Path, phase: Choice = "all", variant: str | None = None, expert_bytes: int | None = None) -> Source:
    """What is to be replayed of `path`; UsageError where it cannot be read, contradicts itself or has no such phase.

    `expert_bytes` replaces what the run's recipe or the log says of an expert's size.
    """
    found = read(path)
    chosen, label = of_variant(found.traces, variant, path)
    traces = by_phase(chosen, phase, path)
    layers = layers_of(traces)
    header = next(iter(traces.values()))[0].header
    checked = reproductions(found.run, path) if found.run else []
    whole = weights_of(found.run.record.ran.model) if found.run and not expert_bytes else {}
    trace = TraceSource(
        name=re.sub(r"[^\w.+-]+", "_", found.name) or "trace",  # it becomes the name of a folder
        path=str(path),
        workload=header.workload,
        num_experts=header.num_experts,
        top_k=header.top_k,
        layers=layers,
        decisions=decisions_of(one for ranks in traces.values() for one in ranks),
        forced=header.forced,
        expert_bytes=sizes_of(found, layers, expert_bytes, path),
        step_ns=step_times(found.run, label, traces) if found.run else {},
        token_bytes=found.run.record.ran.model.dim * found.run.record.ran.model.bytes_per_element if found.run else None,
        weights_hash=found.run.record.weights_hash if found.run else "",
        **whole,
    )
    return Source(trace, label, traces, found.as_logged, [*checked, *remarks(found, traces, trace, phase)])


def reproductions(run: Run, path: Path) -> list[str]:
    """A remark for every buffered variant of a run, whose hits a replay reproduces one by one; UsageError where it does not."""
    told = []
    for buffered in filter(None, map(buffered_of, run.record.variants)):
        counts = []
        for (phase,), loads in run.loads.of(variant=buffered.label, point="").groups("phase"):
            key = (phase, buffered.label)
            ranks = sorted(
                (one for one in run.traces if (one.header.phase, one.header.variant) == key), key=lambda one: one.header.rank
            )
            try:
                counts.append(f"{reproduced(loads, ranks, buffered, run.placement(phase, buffered.label)):,} in {phase}")
            except DifferenceError as error:
                raise UsageError(
                    f"run {path}: a replay does not do what {buffered.label} did in {phase}: {error}",
                    "Its files do not belong together, or it is a defect of moeprof: nothing is told of other slots or policies.",
                ) from error
        if counts:
            told.append(
                f"{buffered.label} ({buffered.eviction}, {buffered.slots} slots) was replayed first: it hits and misses as it "
                f"did when it ran, expert by expert ({' and '.join(counts)})"
            )
    return told


def read(path: Path) -> Found:
    """Whatever lies there."""
    if path.is_dir():
        run = Run.open(path)
        if run.record.recipe is None:
            raise UsageError(f"run {path}: it is a replay and has no trace of its own", "Give the trace that it replayed.")
        return found_in(run, run.traces, run.record.name)
    if path.suffix == ".parquet":
        trace = RoutingTrace.read(path)
        run_folder = path.absolute().parent.parent
        in_run = path.absolute().parent.name == "routing" and (run_folder / "run.json").is_file()
        owner = Run.open(run_folder) if in_run else None
        return found_in(owner, [trace], run_folder.name) if owner and owner.record.recipe else Found(path.stem, [trace])
    if not path.exists():
        raise UsageError(f"trace {path}: no such file or directory", REMEDY)
    traces = read_route_csv(path)
    return Found(traces[0].names("domain")[0], traces, as_logged=True, expert_bytes=read_expert_bytes(path))


def sizes_of(found: Found, layers: Sequence[str], told: int | None, path: Path) -> dict[str, int]:
    """Bytes of an expert in every layer, as told or as the trace says; {} where nobody does, UsageError for some layers only."""
    if told is not None:
        if told < 1:
            raise UsageError(f"--expert-bytes {told}: an expert has weights", "Give the bytes of one expert.")
        return dict.fromkeys(layers, told)
    known = {layer: size for layer in layers if (size := found.expert_bytes.get(layer))}
    if known and (unknown := [layer for layer in layers if layer not in known]):
        what = f"trace {path}: it does not say how large an expert of layer {unknown[0]} is"
        raise UsageError(what, "Say it with --expert-bytes.")
    return known


def found_in(run: Run, traces: list[RoutingTrace], name: str) -> Found:
    """Traces of a run, whose recipe says how large an expert is."""
    model = run.record.ran.model
    size = ffn_parameters(model) * model.bytes_per_element
    layers = dict.fromkeys(layer for trace in traces for layer in trace.header.layers)
    return Found(name, traces, run=run, expert_bytes=dict.fromkeys(layers, size))


def step_times(run: Run, variant: str, traces: dict[str, list[RoutingTrace]]) -> dict[str, float]:
    """Latency of a step in each replayed phase, in ns over all domains; phases that the run did not time are left out."""
    timed = RunMetrics.of(run).at(variant=variant)
    found = {phase: timed.or_none("step_latency", phase=ranks[0].header.phase) for phase, ranks in traces.items()}
    return {phase: time for phase, time in found.items() if time is not None}


def of_variant(traces: Sequence[RoutingTrace], wanted: str | None, path: Path) -> tuple[list[RoutingTrace], str]:
    """The traces of one variant, and its label: the first one that has rows, unless another is asked for."""
    labels = list(dict.fromkeys(trace.header.variant for trace in traces if len(trace)))
    if not labels:
        raise UsageError(f"trace {path}: it has no routings", REMEDY)
    label = wanted or ("static" if "static" in labels else labels[0])
    if label not in labels:
        raise UsageError(f"trace {path}: it has no variant {label!r}", f"It has {', '.join(labels)}.")
    return [trace for trace in traces if len(trace) and trace.header.variant == label], label


def by_phase(traces: Sequence[RoutingTrace], phase: Choice, path: Path) -> dict[str, list[RoutingTrace]]:
    """Traces of the phases to replay, prefill first."""
    found: dict[str, list[RoutingTrace]] = {name: [] for name in PHASES}
    for trace in traces:
        name = REPLAYED_AS.get(trace.header.phase)
        if name is None:
            raise UsageError(f"trace {path}: phase {trace.header.phase!r} is none of {', '.join(REPLAYED_AS)}", REMEDY)
        check(trace, path)
        found[name].append(trace)
    kept = {name: ranks for name, ranks in found.items() if ranks and phase in (ALL, name)}
    if not kept:
        raise UsageError(
            f"trace {path}: it has no routings of phase {phase}",
            f"It has {', '.join(name for name, ranks in found.items() if ranks)}; leave --phase away to replay that.",
        )
    alike = {(trace.header.num_experts, trace.header.workload) for ranks in kept.values() for trace in ranks}
    if len(alike) > 1:
        raise UsageError(f"trace {path}: its parts are of different models", "Replay one phase at a time, with --phase.")
    return kept


def check(trace: RoutingTrace, path: Path) -> None:
    """UsageError where a choice stands twice."""
    codes, _ = trace.codes("layer")
    keys = [codes, *(trace.column(name) for name in ("step", "sequence", "position", "slot"))]
    twice = len(trace) - len(distinct(keys))
    if twice:
        header = trace.header
        raise UsageError(
            f"trace {path}: {twice} rows of phase {header.phase} stand twice: same layer, step, token and slot",
            "Record the trace again; a token chooses an expert once per slot.",
        )


def layers_of(traces: dict[str, list[RoutingTrace]]) -> list[str]:
    """Layers that have rows, in the order of execution."""
    headers = dict.fromkeys(layer for ranks in traces.values() for trace in ranks for layer in trace.header.layers)
    rows = {layer for ranks in traces.values() for trace in ranks for layer in trace.names("layer")}
    return sorted((layer for layer in headers if layer in rows), key=execution_order)


def execution_order(layer: str) -> tuple[bool, int, str]:
    """`enc.3` before `dec.3` before `dec.7`; `3` before `12`."""
    stack, _, number = layer.rpartition(".")
    return stack == "dec", int(number) if number.isdecimal() else 0, layer


def remarks(found: Found, traces: dict[str, list[RoutingTrace]], trace: TraceSource, phase: Choice) -> list[str]:
    """What a reader must know that the numbers cannot say."""
    preamble = found.expert_bytes if found.as_logged else ()
    listed = [*preamble, *(layer for ranks in traces.values() for one in ranks for layer in one.header.layers)]
    silent = [layer for layer in dict.fromkeys(listed) if layer not in trace.layers]
    told = [f"no routing was recorded of layer {', '.join(silent)}, so it has no cache here"] if silent else []
    if phase == ALL:
        told += [
            f"the trace has no {name} steps; what follows is {next(iter(traces))} alone"
            for name in PHASES
            if name not in traces
        ]
    if not trace.expert_bytes:
        told.append("nobody says how large an expert is, so bytes, times and memory are left out; --expert-bytes SIZE says it")
    return told
