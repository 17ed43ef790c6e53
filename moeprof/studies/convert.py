"""Writes a routing trace, or counts of experts, in another format, and says what that format cannot hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import reported
from moeprof.records.traces.choice_counts import ALL_DOMAINS, ChoiceCounts
from moeprof.records.traces.counting import counted
from moeprof.records.traces.formats import FORMATS, read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile, TraceFormat
from moeprof.studies.replay.source import of_variant, read

COLUMN_TITLES = {
    "step": "forward passes",
    "sequence": "numbers of sequences",
    "position": "positions",
    "token_id": "token ids",
    "weight": "weights of choices",
    "domain": "domains",
    "dropped": "which choices were dropped",
    "residency": "hits and misses of a cache",
}
"""What a column of a trace says, for the line about what a format cannot hold."""


@dataclass(frozen=True)
class Conversion:
    """What was written, and what was lost."""

    file: TraceFile
    """What was written, as the target format got it."""
    target: TraceFormat
    out: Path
    lost: list[str]
    """What the source says and the target cannot hold."""
    remarks: list[str]
    """What the import of the source left out."""


def convert(
    paths: Sequence[Path],
    out: Path,
    *,
    target: str | None = None,
    variant: str | None = None,
    options: ImportOptions,
    force: bool = False,
) -> Conversion:
    """Reads the files of one recording, or a run directory, and writes them to `out`.

    `target` is the name of a format; without it the name of `out` decides.
    UsageError if the files cannot be read, the target cannot hold them, or `out` exists and `force` is not given.
    """
    entry = target_format(target, out)
    refuse_existing(out, force=force)
    found = content(paths, variant, options)
    with reported(f"trace {paths[0]}", f"Choose another format with --to: {', '.join(writable())}."):
        held = fitting(found, entry)
        lost = list(lost_facts(found, entry))
        assert entry.write is not None
        entry.write(held, out)
    return Conversion(held, entry, out, lost, list(found.report.lines) if found.report else [])


def refuse_existing(out: Path, *, force: bool) -> None:
    """UsageError if `out` exists and `force` is not given."""
    if out.exists() and not force:
        raise UsageError(f"{out}: it exists already", "Give another OUT, or --force to replace it.")


def content(paths: Sequence[Path], variant: str | None, options: ImportOptions) -> TraceFile:
    """What the files hold; of several variants of a run, the wanted one, static gating, or the first one."""
    if len(paths) == 1:
        found = read(paths[0], loads_only=True, options=options)[0]
    else:
        found = read_recording(paths, loads_only=True, options=options)
    traces = of_variant(found.traces, variant, paths[0])[0] if found.traces else []
    return replace(found, traces=[trace.without_token_ids() for trace in traces] if options.strip_tokens else traces)


def writable() -> list[str]:
    """The names of the formats that moeprof writes."""
    return [name for name, entry in FORMATS.items() if entry.write]


def target_format(name: str | None, out: Path) -> TraceFormat:
    """The format with a name, or the one that the ending of OUT names; UsageError if there is none, or moeprof cannot write it."""
    chosen = name or next((entry.name for entry in FORMATS.values() if out.name.endswith(entry.endings)), None)
    if chosen is None:
        raise UsageError(f"{out}: the name does not say which format is wanted", f"Give --to: {', '.join(writable())}.")
    if chosen not in writable():
        problem = "moeprof reads this format and does not write it" if chosen in FORMATS else "unknown format"
        raise UsageError(f"--to {chosen}: {problem}", f"Formats to write: {', '.join(writable())}.")
    return FORMATS[chosen]


def fitting(file: TraceFile, entry: TraceFormat) -> TraceFile:
    """The content in the form that a format takes: choices, or counts, with one domain where it knows none."""
    if file.traces and not entry.loads_only:
        return file
    if not (file.traces or entry.loads_only or entry.either):
        raise ValueError(f"it holds counts, and {entry.name} needs the choices of tokens")
    counts = file.counts or counted(file.traces, by_step="step" in entry.keeps)
    return replace(
        file, traces=[], counts=counts if "domain" in entry.keeps else pooled(counts, steps_shared=file.counts is None)
    )


def pooled(counts: ChoiceCounts, *, steps_shared: bool) -> ChoiceCounts:
    """The counts of all domains together, as totals unless the domains share their steps."""
    if len(counts.counts) == 1:
        return counts
    one_by_one = counts.counts.values() if steps_shared else [counts.totals(domain)[None] for domain in counts.counts]
    return replace(counts, counts={ALL_DOMAINS: np.asarray(sum(one_by_one))})


def lost_facts(source: TraceFile, entry: TraceFormat) -> Iterator[str]:
    """What the source says and the format has no field for."""
    if source.traces and entry.loads_only:
        yield "choices of single tokens"
    stated = {name for trace in source.traces for name in stated_columns(trace)}
    stated &= {"domain"} if entry.loads_only else stated
    if source.counts is not None:
        stated = {"domain"} if len(source.counts.counts) > 1 else set()
        stated |= {"step"} if source.counts.num_steps > 1 else set()
    yield from (title for name, title in COLUMN_TITLES.items() if name in stated - entry.keeps)
    if not entry.loads_only and "phase" not in entry.keeps and len({trace.header.phase for trace in source.traces}) > 1:
        yield "phases"


def stated_columns(trace: RoutingTrace) -> Iterator[str]:
    """The columns that say something: not only what stands for unknown, and not the same in all rows where that says nothing."""
    if not len(trace):
        return
    yield from (name for name in ("step", "sequence", "position") if trace.column(name).any())
    if (trace.column("token_id") >= 0).any():
        yield "token_id"
    if np.isfinite(trace.column("weight")).any():
        yield "weight"
    if len(trace.names("domain")) > 1:
        yield "domain"
    if trace.column("dropped").any():
        yield "dropped"
    if trace.table["residency"].null_count < len(trace):
        yield "residency"
