"""The registry of trace formats: a replay and forced routing read every file through it.

A new format is one file that defines a `TraceFormat`, and one line in the table.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.system.parsing import uncollected
from moeprof.records.traces.dumps.registry import DUMPS
from moeprof.records.traces.foreign import kind_of_file, kind_of_folder
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.logs.registry import LOGS
from moeprof.records.traces.native_formats import COUNT_TABLE, RUN_TRACE
from moeprof.records.traces.route_csv import ROUTE_CSV
from moeprof.records.traces.routing_trace import RoutingTrace, read_traces
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

FORMATS: dict[str, TraceFormat] = {}
"""By name; the first one that recognises a file reads it, the latest registered first."""

NO_OPTIONS = ImportOptions()


def register(entry: TraceFormat) -> None:
    """Makes a format known to every command; ValueError if the name is taken."""
    if entry.name in FORMATS:
        raise ValueError(f"trace format {entry.name!r} is registered already")
    FORMATS[entry.name] = entry


for known in (RUN_TRACE, ROUTE_CSV, COUNT_TABLE, *DUMPS, *LOGS):
    register(known)


def format_of(file: InputFile) -> TraceFormat:
    """The format of a file; UsageError if the file cannot be read, or no format recognises it."""
    with reported(f"trace {file.path}", remedy()):
        for entry in reversed(FORMATS.values()):
            if entry.recognise(file):
                return entry
        raise ValueError(kind_of_file(file))


def read_trace_file(path: Path, *, loads_only: bool = False, options: ImportOptions = NO_OPTIONS) -> TraceFile:
    """The content of a file in any known format, or of a folder that holds the files of one recording.

    With `loads_only` a file that holds loads and no choices is accepted too; otherwise it is a UsageError.
    """
    return read_recording(files_in(path), loads_only=loads_only, options=options)


def files_in(path: Path) -> list[Path]:
    """The file at a path, or the files in a folder or its `routing/`, in order of their names and without hidden ones.

    UsageError that says what the folder is if no format recognises any of them, or if it is a part of a run directory.
    """
    if not path.is_dir():
        return [path]
    folder = path / "routing" if (path / "routing").is_dir() else path
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    with reported(f"trace {path}", remedy()):
        in_run = (path.absolute().parent / "run.json").is_file()
        if in_run or not any(entry.recognise(InputFile(file)) for entry in FORMATS.values() for file in files):
            raise ValueError(kind_of_folder(path))
    return files


def read_recording(paths: Sequence[Path], *, loads_only: bool = False, options: ImportOptions = NO_OPTIONS) -> TraceFile:
    """The content of the files of one recording, of the stated format or of that which recognises all of them."""
    sources = [InputFile(path) for path in paths]
    entry = format_named(options.format) if options.format else common_format(sources)
    if entry.loads_only and not loads_only:
        raise no_choices(paths[0], entry)
    with uncollected():
        file = entry.read(sources, options)
    if not file.traces and not loads_only:
        raise no_choices(paths[0], entry)
    check_tokens(file.traces, paths[0])
    return file


def no_choices(path: Path, entry: TraceFormat) -> UsageError:
    """The error for a file that has loads where choices are needed."""
    return UsageError(
        f"trace {path}: {entry.title} holds loads, and not the choices of tokens",
        "Replay it with --balance. --cache and forced routing need choices; docs/traces.md lists the formats that have them.",
    )


def format_named(name: str) -> TraceFormat:
    """The format of a name; UsageError if there is none."""
    if name not in FORMATS:
        raise UsageError(f"--from {name}: unknown format", f"Formats: {', '.join(FORMATS)}.")
    return FORMATS[name]


def common_format(sources: Sequence[InputFile]) -> TraceFormat:
    """The format of all files; UsageError if they are of several formats."""
    found = {entry.name: source for source in reversed(sources) for entry in [format_of(source)]}
    if len(found) > 1:
        (one, first), (other, second) = list(found.items())[:2]
        raise UsageError(
            f"trace {first.path}: {FORMATS[one].title}; but {second.path}: {FORMATS[other].title}",
            "Give the files of one recording.",
        )
    return FORMATS[next(iter(found))]


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
    if traces := list(read_traces(path / "routing")):
        check_tokens(traces, path)
        return traces
    if not (path / "run.json").is_file():
        return read_trace_file(path).traces
    raise UsageError(f"run {path}: no routing trace in it", remedy())


def remedy() -> str:
    """What to give in place of a file that no format recognises, as the second line of an error."""
    return "Give a routing trace or a table of counts; docs/traces.md lists the formats, --from FORMAT states one."
