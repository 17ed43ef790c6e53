"""Writes a routing trace, or counts of experts, in another format, and says what that format cannot hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import reported
from moeprof.records.traces.choice_counts import ALL_DOMAINS, ChoiceCounts
from moeprof.records.traces.counting import counted
from moeprof.records.traces.formats import FORMATS, read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile, TraceFormat
from moeprof.studies.convert_losses import lost_facts
from moeprof.studies.replay.source import of_variant, read


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
    with reported(f"trace {paths[0]}", f"Choose another format with --to: {', '.join(holding(found))}."):
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


def holding(file: TraceFile) -> list[str]:
    """The names of the formats that can hold the content."""
    return [name for name in writable() if not unfit(file, FORMATS[name])]


def target_format(name: str | None, out: Path) -> TraceFormat:
    """The format with a name, or the one that the ending of OUT names; UsageError if there is none, or moeprof cannot write it."""
    chosen = name or next((entry.name for entry in FORMATS.values() if out.name.endswith(entry.endings)), None)
    if chosen is None:
        raise UsageError(f"{out}: the name does not say which format is wanted", f"Give --to: {', '.join(writable())}.")
    if chosen not in writable():
        known = chosen in FORMATS
        problem = FORMATS[chosen].unwritten or "moeprof reads this format and does not write it" if known else "unknown format"
        raise UsageError(f"--to {chosen}: {problem}", f"Formats to write: {', '.join(writable())}.")
    return FORMATS[chosen]


def unfit(file: TraceFile, entry: TraceFormat) -> str:
    """Why a format cannot hold the content; an empty string if it can."""
    repeated = max((trace.header.imported.repeated for trace in file.traces if trace.header.imported), default=0)
    if file.traces and not entry.loads_only and repeated and not entry.repeats:
        return f"{repeated:,} rows have two copies of one expert, and in {entry.name} a token's experts differ"
    if not (file.traces or entry.loads_only or entry.either):
        return f"it holds counts, and {entry.name} needs the choices of tokens"
    named = [name for trace in file.traces for name in trace.header.layers if not name.isdecimal()]
    if named and not entry.stacks:
        return f"layer {named[0]} has no absolute number, because the model has two stacks of layers"
    return ""


def fitting(file: TraceFile, entry: TraceFormat) -> TraceFile:
    """The content in the form that a format takes: choices, or counts, with one domain where it knows none; ValueError if it cannot."""
    if why := unfit(file, entry):
        raise ValueError(why)
    if file.traces and not entry.loads_only:
        return file
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
