"""Replays a trace through expert caches of every policy and size, and leaves a run directory with the misses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from moeprof.analysis.caching.accesses import AccessStream
from moeprof.analysis.caching.cache_sample import cache_sample
from moeprof.analysis.caching.replay_rows import replay_rows
from moeprof.instrument.machine import host
from moeprof.policies.cache import AccessMode
from moeprof.policies.eviction.registry import DEFAULT, TABLE, make_eviction
from moeprof.records.errors import UsageError
from moeprof.records.run.raw_tables import CACHE_SAMPLE
from moeprof.records.run.replay import PhaseChoice, ReplayRequest, TraceSource
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.units import format_bytes
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.replay.source import ReplaySource

POLICIES = ("min", DEFAULT, *(policy.name for policy in TABLE if policy.name != "min"))
"""Replayed by default: the lower bound first, then the paper's choice."""


@dataclass(frozen=True)
class CacheOptions:
    """The options of `moeprof replay --cache`."""

    policies: Sequence[str] = ()
    """Default: all of POLICIES."""
    slots: Sequence[int] = ()
    """Default, if there are no `budgets` either: every number from 1 to all of a layer's experts on a device."""
    budgets: Sequence[int] = ()
    access: AccessMode = "sequential"
    phase: PhaseChoice = "all"
    devices: int = 1
    bandwidth: int = 12 * 10**9
    overlap_ns: int = 0


def replay_caches(
    source: ReplaySource,
    options: CacheOptions,
    out: Path,
    *,
    force: bool = False,
    argv: Sequence[str] = (),
    progress: Progress | None = None,
) -> Run:
    """The finished run in `out`; UsageError if an option does not fit the trace."""
    shown, notes = progress or Silent(), [*source.notes]
    request = resolved(source.trace, options, notes)
    inputs = source.selection.cache_inputs
    notes += gaps(inputs.stream)
    record = RunRecord(command="replay", argv=list(argv), replay=request, environment=host(), notes=notes)
    writer = RunWriter(out, record, force=force)
    with writer.guarded():
        shown.stage("policies", len(request.policies))
        rows = list(replay_rows(record, inputs, shown.advance))
        writer.add_metrics(rows)
        if sample := list(cache_sample(record, rows, inputs.variant, inputs.stream)):
            writer.append(CACHE_SAMPLE, pa.Table.from_pylist(sample))
        return writer.finish(*source.selection.reasons)


def resolved(trace: TraceSource, options: CacheOptions, notes: list[str]) -> ReplayRequest:
    """The request with every default filled in; what differs from the options is added to `notes`."""
    if trace.num_experts % options.devices:
        raise UsageError(
            f"--devices {options.devices}: {trace.num_experts} experts cannot be divided equally",
            "Give a divisor of that number.",
        )
    policies = [make_eviction(name).name for name in dict.fromkeys(options.policies or POLICIES)]
    return ReplayRequest(
        trace=trace,
        policies=policies,
        slots=[] if options.budgets else slots_of(trace, options, notes),
        budgets=budgets_of(trace, options, notes),
        access=options.access,
        phase=options.phase,
        devices=options.devices,
        bandwidth=options.bandwidth,
        overlap_ns=options.overlap_ns,
    )


def slots_of(trace: TraceSource, options: CacheOptions, notes: list[str]) -> list[int]:
    """Numbers of cache slots, rising; numbers above the experts of a layer are replaced by that number."""
    most = trace.num_experts // options.devices
    if options.slots and min(options.slots) < 1:
        raise UsageError(f"--slots {min(options.slots)}: must be at least 1", f"Give 1 to {most}.")
    if more := [slots for slots in options.slots if slots > most]:
        notes.append(f"{', '.join(map(str, more))} slots: replayed as {most}, the experts of a layer on a device")
    return sorted({min(slots, most) for slots in options.slots or range(1, most + 1)})


def budgets_of(trace: TraceSource, options: CacheOptions, notes: list[str]) -> list[int]:
    """Budgets in bytes, rising; UsageError if one is smaller than an expert, or the size of an expert is unknown."""
    if not options.budgets:
        return []
    if not trace.expert_bytes:
        raise UsageError("--budget: expert size unknown", "Set --expert-bytes SIZE.")
    largest = max(trace.expert_bytes.values())
    if min(options.budgets) < largest:
        raise UsageError(
            f"--budget {format_bytes(min(options.budgets))}: below one expert of {format_bytes(largest)}",
            "Give room for at least one expert; all layers share the budget.",
        )
    whole = sum(trace.expert_bytes.values()) * trace.num_experts // options.devices
    if more := [size for size in options.budgets if size > whole]:
        shown = ", ".join(map(format_bytes, sorted(more)))
        notes.append(f"{shown}: all experts of a device ({format_bytes(whole)}) fit, so none is evicted")
    return sorted(set(options.budgets))


def gaps(stream: AccessStream) -> list[str]:
    """Notes on layers that occur in some steps of a phase only; layers that occur in none do not belong to the phase."""
    notes = []
    for phase, batches_L, steps in zip(stream.phases, stream.batches_PL, stream.steps_P, strict=True):
        few = [f"{layer} ({count:,})" for layer, count in zip(stream.layers, batches_L, strict=True) if 0 < count < steps]
        if few:
            notes.append(f"{phase}: layers with fewer than the {steps:,} steps of the phase: {', '.join(few)}")
    return notes
