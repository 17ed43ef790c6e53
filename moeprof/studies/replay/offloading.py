"""Replays a trace through offloading systems with the same fast memory, and leaves a run directory with what each would load."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path

import numpy as np
import pyarrow as pa

from moeprof.analysis.caching.fitted_weights import FittedChoice, fitted_choice
from moeprof.analysis.caching.offloading import offloading_rows
from moeprof.analysis.caching.offloading_replay import ReplayedModel, UnitBytes, buffered_events, replayed_events
from moeprof.analysis.caching.routed_steps import RoutedStep, routed_steps
from moeprof.instrument.machine import host
from moeprof.policies.eviction.registry import DEFAULT
from moeprof.policies.offloading.planner import HIGH
from moeprof.records.errors import UsageError
from moeprof.records.precision import PRECISIONS
from moeprof.records.recipe.model import ModelSection
from moeprof.records.recipe.offloading import Offloading, system_of
from moeprof.records.run.raw_tables import UNIT_EVENTS
from moeprof.records.run.replay import OffloadingRequest, PhaseChoice
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.system.files import PAGE
from moeprof.records.units import format_bytes
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.replay.source import ReplaySource

ASSUMED_BITS = 16
"""Of a weight, if neither the model that was recorded nor the user says."""


@dataclass(frozen=True)
class OffloadingOptions:
    """The options of `moeprof replay --presets`."""

    systems: Sequence[str] = field(default_factory=list)
    slots: int | None = None
    """Default: a quarter of the experts of a layer."""
    phase: PhaseChoice = "all"
    bandwidth: int = 12 * 10**9
    weight_bits: int | None = None
    """Default: those of the recorded model."""


def replay_offloading(
    source: ReplaySource,
    options: OffloadingOptions,
    out: Path,
    *,
    force: bool = False,
    argv: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """The finished run in `out`; UsageError if a system cannot be replayed, or an option does not fit the trace."""
    shown = progress or Silent()
    request = resolved(source, options)
    choices = {text: system_of(text) for text in request.systems}
    steps = steps_of(source)
    check(source, choices, steps, request.weight_bits)
    times = {phase: {step.time for step in steps if step.phase == phase} for phase in source.selection.traces}
    request = request.model_copy(update={"steps": {phase: len(found) for phase, found in times.items()}})
    notes = [*source.notes, *(note for text, choice in choices.items() if choice for note in remarks(text, choice, request))]
    record = RunRecord(command="replay", argv=list(argv), offloading=request, environment=host(), notes=notes)
    writer = RunWriter(out, record, force=force, derive=offloading_rows)
    with writer.guarded():
        shown.stage("systems", len(steps) * len(choices))
        for text, choice in choices.items():
            table = pa.Table.from_pylist(
                [{"variant": text} | row for row in events_of(source, record, text, choice, steps, shown)]
            )
            writer.append(UNIT_EVENTS, table.select(UNIT_EVENTS.schema.names))
        return writer.finish(*source.selection.reasons)


def resolved(source: ReplaySource, options: OffloadingOptions) -> OffloadingRequest:
    """The request with every default filled in; UsageError if the trace lacks what it needs."""
    trace, run = source.trace, source.selection.run
    if not trace.expert_bytes:
        raise UsageError("--presets: expert size unknown", "Set --expert-bytes SIZE.")
    if any(len(ranks) > 1 for ranks in source.selection.traces.values()):
        raise UsageError(
            f"--presets: {trace.path} was recorded on several ranks, and an offloading system runs on one",
            "Give the file of one rank in its routing/ folder.",
        )
    own_bits = 8 * run.record.ran.model.bytes_per_element if run else 0
    slots = max(trace.num_experts // 4, 1) if options.slots is None else options.slots
    if not 1 <= slots <= trace.num_experts:
        raise UsageError(f"--slots {slots}: a layer has {trace.num_experts} experts", f"Give 1 to {trace.num_experts}.")
    return OffloadingRequest(
        trace=trace,
        systems=list(dict.fromkeys(options.systems)),
        slots=slots,
        phase=options.phase,
        bandwidth=options.bandwidth,
        weight_bits=options.weight_bits or own_bits or ASSUMED_BITS,
        weight_bits_known=bool(options.weight_bits or own_bits),
    )


def check(source: ReplaySource, choices: dict[str, Offloading | None], steps: Sequence[RoutedStep], weight_bits: int) -> None:
    """UsageError if a system needs what the trace does not have."""
    measured = "Leave it out, or run the model: moeprof optimize --presets."
    weighed = all(isfinite(step.weights_TK.sum()) for step in steps)
    for text, choice in choices.items():
        if choice is None:
            continue
        if choice.cold:
            what = f"preset {text}: what a second process computes depends on measured times, which a trace does not have"
            raise UsageError(what, measured)
        if choice.foresight == "predictor":
            raise UsageError(f"preset {text}: its predictor reads embeddings of tokens, which a trace does not have", measured)
        if wide := [name for name in choice.low if PRECISIONS[name].bits_per_weight >= weight_bits]:
            what = f"preset {text}: {wide[0]} takes {PRECISIONS[wide[0]].bits_per_weight:g} bits per weight, and the model {weight_bits}"
            raise UsageError(what, "Use a lower precision, such as low=int2, or correct --weight-bits.")
        if choice.weighs and not weighed:
            what = f"preset {text}: it decides by the weights of experts, and {source.trace.path} lacks weights"
            raise UsageError(what, "Give a trace with weights, or leave the preset out.")


def remarks(text: str, choice: Offloading, request: OffloadingRequest) -> Iterator[str]:
    """What a replay leaves out of a system, or assumes."""
    if unmet := choice.unmet(text, request.trace.top_k):
        yield unmet
    if choice.foresight == "lookahead":
        yield f"{text}: replayed without look-ahead, which needs the routers of the model"
    if choice.preload:
        yield f"{text}: replayed without host memory, into which it reads whole layers"
    if choice.order != "index":
        yield f"{text}: a load is taken to be longer than any computation, so that loads of experts with more rows come first"
    if choice.low:
        yield (
            f"{text}: sizes in {' and '.join(choice.low)} are those of weights that have {request.weight_bits} bits in the model"
        )


def steps_of(source: ReplaySource) -> list[RoutedStep]:
    """The steps of all replayed phases, in order."""
    chosen = source.selection
    traces = {phase: ranks[0] for phase, ranks in chosen.traces.items()}
    file = chosen.file
    return list(routed_steps(traces, chosen.layers, as_logged=file.as_logged, shared_steps=file.shared_steps))


def events_of(
    source: ReplaySource,
    record: RunRecord,
    text: str,
    choice: Offloading | None,
    steps: Sequence[RoutedStep],
    progress: Progress,
) -> list[dict[str, object]]:
    """Rows of the raw table `unit_events` of one system, without its name; weights that are fitted are added to the notes."""
    chosen, request = source.selection, record.offloaded
    layers, num_experts = request.trace.layers, request.trace.num_experts
    model = ReplayedModel(layers, num_experts, request.slots, cold_phases=not chosen.file.shared_steps)
    sizes = [unit_bytes(source, request, layer, choice.low if choice else ()) for layer in layers]
    if choice is None:
        return buffered_events(model, DEFAULT, chosen.cache_inputs.stream, sizes)
    if choice.fits:
        found = fitted_choice(choice, model, steps, sizes)
        choice = found.choice
        record.notes.append(fitting_note(text, found))
    return replayed_events(model, choice, steps, sizes, progress.advance)


def fitting_note(text: str, found: FittedChoice) -> str:
    """The weights, and what they are worth on the half that they were not fitted on."""
    weights = ":".join(f"{weight:g}" for weight in found.choice.weights)
    best = min(found.single_bytes, key=lambda name: found.single_bytes[name])
    least, recency = found.single_bytes[best], found.single_bytes["recency"]
    against = {best: least, "recency": recency}
    parts = [f"{found.held_out_bytes / size - 1:+.1%} beside {name} alone" for name, size in against.items() if size]
    remark = " (the best single weight)" if best != "recency" else ""
    said = f"{parts[0]}{remark}" + "".join(f", {part}" for part in parts[1:]) if parts else "none beside none"
    return (
        f"{text}: weights={weights}, fitted on the first half of the steps; in the other half it loads "
        f"{format_bytes(found.held_out_bytes)} on demand, {said}"
    )


def unit_bytes(source: ReplaySource, request: OffloadingRequest, layer: str, low: Sequence[str]) -> UnitBytes:
    """Bytes of an expert of a layer by precision; of a run's own model those of its entries, whole pages."""
    run, size = source.selection.run, request.trace.expert_bytes[layer]
    found = {HIGH: size} | {name: int(size * PRECISIONS[name].bits_per_weight / request.weight_bits) for name in low}
    if run is None or request.trace.weight_bytes is None:  # the size is the user's, or the file's
        return found
    if isinstance(model := run.record.ran.model, ModelSection):
        shapes = list(model.ffn_shapes.values())
        found |= {name: PRECISIONS[name].packed_bytes(shapes, model.bytes_per_element) for name in low}
    return {name: int(np.ceil(num_bytes / PAGE)) * PAGE for name, num_bytes in found.items()}
