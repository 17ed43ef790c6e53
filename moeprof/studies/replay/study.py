"""Replays a trace through expert caches of every policy and size, and leaves a run directory with what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from moeprof.analysis.caching.accesses import Stream, stream_of
from moeprof.analysis.caching.miss_curves import missed
from moeprof.analysis.caching.replay_rows import Outcome, replay_rows
from moeprof.instrument.machine import host
from moeprof.policies.cache import AccessMode
from moeprof.policies.eviction.registry import DEFAULT, EVICTION, make_eviction
from moeprof.records.errors import UsageError
from moeprof.records.run.replay import Choice, ReplayRequest, TraceSource
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.units import format_bytes
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.replay.source import Source

POLICIES = ("min", DEFAULT, *(name for name in EVICTION if name != "min"))
"""Replayed where nobody asks for others: the floor first, then the paper's choice."""


@dataclass(frozen=True)
class Asked:
    """What the user wants to know."""

    policies: Sequence[str] = ()
    """All of POLICIES where empty."""
    slots: Sequence[int] = ()
    """Every number from 1 to all of a layer's experts on a device, where this and `budgets` are empty."""
    budgets: Sequence[int] = ()
    access: AccessMode = "sequential"
    phase: Choice = "all"
    devices: int = 1
    bandwidth: int = 12 * 10**9
    overlap_ns: int = 0


def replay_caches(
    source: Source, asked: Asked, out: Path, *, force: bool = False, argv: Sequence[str] = (), progress: Progress | None = None
) -> Run:
    """The finished run in `out`; UsageError where the trace cannot answer what is asked."""
    told, notes = progress or Silent(), [*source.notes]
    replay = resolved(source.trace, asked, notes)
    stream = stream_of(source.traces, source.trace.layers, as_logged=source.as_logged)
    notes += gaps(stream)
    record = RunRecord(command="replay", argv=list(argv), replay=replay, environment=host(), notes=notes)
    writer = RunWriter(out, record, force=force)
    with writer.guarded():
        counts = {}
        told.stage("policies", len(replay.policies))
        for policy in replay.policies:
            counts[policy] = missed(stream, replay, policy)
            told.advance()
        writer.add_metrics(replay_rows(Outcome(stream, replay, source.variant, counts)))
    return writer.finish()


def resolved(trace: TraceSource, asked: Asked, notes: list[str]) -> ReplayRequest:
    """What will be replayed; remarks on what cannot be as asked are added to `notes`."""
    if trace.num_experts % asked.devices:
        raise UsageError(f"--devices {asked.devices}: {trace.num_experts} experts do not divide over them", "Give a divisor.")
    policies = [make_eviction(name).name for name in dict.fromkeys(asked.policies or POLICIES)]
    return ReplayRequest(
        trace=trace,
        policies=policies,
        slots=[] if asked.budgets else slots_of(trace, asked, notes),
        budgets=budgets_of(trace, asked, notes),
        access=asked.access,
        phase=asked.phase,
        devices=asked.devices,
        bandwidth=asked.bandwidth,
        overlap_ns=asked.overlap_ns,
    )


def slots_of(trace: TraceSource, asked: Asked, notes: list[str]) -> list[int]:
    """Rising; more than a layer has experts are as many as it has."""
    most = trace.num_experts // asked.devices
    if asked.slots and min(asked.slots) < 1:
        raise UsageError(f"--slots {min(asked.slots)}: a cache needs a slot", f"Give 1 to {most}.")
    if more := [slots for slots in asked.slots if slots > most]:
        notes.append(f"{', '.join(map(str, more))} slots: a layer has {most} experts on a device, so {most} were replayed")
    return sorted({min(slots, most) for slots in asked.slots or range(1, most + 1)})


def budgets_of(trace: TraceSource, asked: Asked, notes: list[str]) -> list[int]:
    """Rising; UsageError for one that does not hold every layer's expert, or where nobody knows how large that is."""
    if not asked.budgets:
        return []
    if not trace.expert_bytes:
        raise UsageError("--budget: nobody says how large an expert of this trace is", "Say it with --expert-bytes SIZE.")
    largest = max(trace.expert_bytes.values())
    if min(asked.budgets) < largest:
        raise UsageError(
            f"--budget {format_bytes(min(asked.budgets))}: below one expert of {format_bytes(largest)}",
            "Give room for at least one; several layers share it.",
        )
    whole = sum(trace.expert_bytes.values()) * trace.num_experts // asked.devices
    if more := [size for size in asked.budgets if size > whole]:
        shown = ", ".join(map(format_bytes, sorted(more)))
        notes.append(f"{shown}: more than all experts of a device, which are {format_bytes(whole)}; nothing is ever evicted")
    return sorted(set(asked.budgets))


def gaps(stream: Stream) -> list[str]:
    """Layers that take part in fewer steps than others of their phase; those that take part in none are not of this phase."""
    told = []
    for phase, batches_L, steps in zip(stream.phases, stream.batches_PL, stream.steps_P, strict=True):
        few = [f"{layer} ({count:,})" for layer, count in zip(stream.layers, batches_L, strict=True) if 0 < count < steps]
        if few:
            told.append(f"{phase}: of {steps:,} steps some layers have fewer in the trace: {', '.join(few)}")
    return told
