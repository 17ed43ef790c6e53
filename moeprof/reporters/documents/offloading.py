"""The report on a replay of offloading systems: what each would load for the routing of a trace, at equal fast memory."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.offloading import system_of
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import cell, duration, percent, times
from moeprof.reporters.documents.document import Block, Heading, Table
from moeprof.reporters.documents.replay import PHASE_TITLES, format_rate
from moeprof.reporters.sections.offloading import decode_first, hits, loaded, share

BASE = "on-demand"
"""The system that the bytes of the others are compared with, if it is replayed; otherwise the first one."""


def summary(metrics: RunMetrics) -> list[str]:
    """The trace, the memory, and the system that loads least in every phase."""
    request = metrics.record.offloaded
    largest = max(request.trace.expert_bytes.values())
    lines = [
        f"Trace: {request.trace.num_experts} experts in each of {len(request.trace.layers)} layers, top-{request.trace.top_k}.",
        f"Setup: fast memory for {request.slots} experts per layer ({format_bytes(request.slots * largest)} in the largest layer), cold "
        f"start, {format_rate(request.bandwidth)} link.",
    ]
    return [*(text for phase in phases_of(metrics) for text in least_line(metrics, phase)), *lines]


def phases_of(metrics: RunMetrics) -> list[str]:
    """Phases in which any system used an expert, decode first."""
    return decode_first(metrics.phases)


def body(metrics: RunMetrics) -> Iterator[Block]:
    """A table per phase."""
    for phase in phases_of(metrics):
        yield Heading(f"Phase {PHASE_TITLES.get(phase, phase)}")
        yield table(metrics, phase)


def table(metrics: RunMetrics, phase: str) -> Table:
    """A row per system, in the order of the command."""
    rows = []
    for system in systems_in(metrics, phase):
        here = metrics.at(phase=phase, variant=system)
        rows.append(
            [
                system,
                cell(hits(here), percent),
                loaded(here, "demand_bytes"),
                loaded(here, "prefetch_bytes"),
                cell(share(here, "skipped_uses"), percent),
                cell(here.or_none("demand_time"), duration),
                beside(metrics, phase, system),
                "no" if lossless(system) else "yes",
            ]
        )
    columns = [
        "system",
        "hits",
        "on demand",
        "ahead",
        "skipped",
        "loads/step (modelled)",
        "on demand beside the first",
        "lossy",
    ]
    return Table(
        columns,
        rows,
        caption="All systems have the bytes of the same number of slots. On demand: bytes that a step waits for. Lossy: what less "
        "precision and skipped experts cost in quality, a trace cannot say; moeprof optimize --presets measures it.",
        labels=1,
    )


def systems_in(metrics: RunMetrics, phase: str) -> list[str]:
    """The systems that used experts in a phase."""
    return metrics.distinct("variant", "unit_uses", phase=phase)


def lossless(system: str) -> bool:
    """Whether a system loads every expert at the model's own precision."""
    choice = system_of(system)
    return choice is None or choice.lossless


def base_of(systems: Sequence[str]) -> str:
    """What the others are compared with."""
    return BASE if BASE in systems else systems[0]


def ratio(metrics: RunMetrics, phase: str, system: str) -> float | None:
    """Bytes on demand over those of the base; None if the base loads nothing."""
    base = base_of(systems_in(metrics, phase))
    mine, theirs = (metrics.or_none("demand_bytes", phase=phase, variant=one) for one in (system, base))
    return mine / theirs if mine is not None and theirs else None


def beside(metrics: RunMetrics, phase: str, system: str) -> str:
    """The ratio of bytes on demand."""
    return cell(ratio(metrics, phase, system), times)


def least_line(metrics: RunMetrics, phase: str) -> Iterator[str]:
    """The system that loads the fewest bytes on demand without loss, and the one that does with loss if that is fewer."""
    found = {one: float(metrics.value("demand_bytes", phase=phase, variant=one)) for one in systems_in(metrics, phase)}
    exact = {system: size for system, size in found.items() if lossless(system)}
    named = [min(group, key=lambda one: group[one]) for group in (exact, found) if group]
    for system in dict.fromkeys(named):
        here, base = metrics.at(phase=phase, variant=system), base_of(list(found))
        loss = "without loss" if lossless(system) else "with loss"
        least = f"{system} loads the fewest bytes on demand, {format_bytes(found[system])}"
        least += f" ({beside(metrics, phase, system)} those of {base})" if found[base] else ""
        if system == base:
            least = f"no system loads fewer bytes on demand than {base}, {format_bytes(found[base])}"
        waited = cell(here.or_none("demand_time"), duration)
        yield f"{phase}, {loss}: {least}; {percent(hits(here) or 0)} of uses hit, and loads take {waited} per step (modelled)."
