"""The registry of trace formats: a replay and forced routing read every file through it.

A new format is one file that defines a `TraceFormat`, and one line in the table.
"""

from collections.abc import Iterable
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.foreign import kind_of_file, kind_of_folder
from moeprof.records.traces.native_formats import COUNT_TABLE, RUN_TRACE
from moeprof.records.traces.route_csv import ROUTE_CSV
from moeprof.records.traces.routing_trace import RoutingTrace, read_traces
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

FORMATS: dict[str, TraceFormat] = {}
"""By name; the first one that recognises a file reads it, the latest registered first."""


def register(entry: TraceFormat) -> None:
    """Makes a format known to every command; ValueError if the name is taken."""
    if entry.name in FORMATS:
        raise ValueError(f"trace format {entry.name!r} is registered already")
    FORMATS[entry.name] = entry


for known in (RUN_TRACE, ROUTE_CSV, COUNT_TABLE):
    register(known)


def format_of(file: InputFile) -> TraceFormat:
    """The format of a file; UsageError if the file cannot be read, or no format recognises it."""
    with reported(f"trace {file.path}", remedy()):
        for entry in reversed(FORMATS.values()):
            if entry.recognise(file):
                return entry
        raise ValueError(kind_of_file(file))


def read_trace_file(path: Path, *, loads_only: bool = False) -> TraceFile:
    """The content of a file in any known format.

    With `loads_only` a file that holds loads and no choices is accepted too; otherwise it is a UsageError.
    """
    source = InputFile(path)
    entry = format_of(source)
    if entry.loads_only and not loads_only:
        raise UsageError(
            f"trace {path}: a {entry.name} holds loads, and not the choices of tokens",
            f"Replay it with --balance. --cache and forced routing need choices: {', '.join(accepted(loads_only=False))}.",
        )
    file = entry.read(source)
    check_tokens(file.traces, path)
    return file


def check_tokens(traces: Iterable[RoutingTrace], path: Path) -> None:
    """The one check of the choices of every format: UsageError if a token's are incomplete or repeated, or a position is negative."""
    for trace in traces:
        try:
            trace.check_tokens()
        except ValueError as error:
            raise UsageError(
                f"trace {path}: {trace.header.phase}: {error}",
                "Record the trace again; in every layer a token has top_k choices, each of another expert.",
            ) from error


def read_routing(path: Path) -> list[RoutingTrace]:
    """The routing traces of a file, or of all variants and phases of a run directory; UsageError if there are none."""
    if not path.is_dir():
        return read_trace_file(path).traces
    if traces := list(read_traces(path / "routing")):
        check_tokens(traces, path)
        return traces
    check_folder(path)
    raise UsageError(f"run {path}: no routing trace in it", remedy())


def check_folder(path: Path) -> None:
    """UsageError that says what a folder is if it is no run directory."""
    if not (path / "run.json").is_file():
        raise UsageError(f"trace {path}: {kind_of_folder(path)}", remedy())


def remedy() -> str:
    """Which traces are accepted, as the second line of an error."""
    more = ", ".join(accepted(loads_only=True))
    return f"Accepted: {', '.join(accepted(loads_only=False))}; with moeprof replay --balance also {more}."


def accepted(*, loads_only: bool) -> list[str]:
    """What holds loads only, or what holds choices."""
    titles = [entry.title for entry in FORMATS.values() if entry.loads_only == loads_only]
    return titles if loads_only else ["a run directory", *titles]
