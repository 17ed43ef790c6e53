"""The two formats that moeprof defines itself: the routing traces of a run, and tables of expert counts."""

from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.columns import MAGIC
from moeprof.records.traces.count_table import read_counts, write_counts
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, single


def is_parquet(file: InputFile) -> bool:
    """Whether the file starts as a Parquet file does, or is named as one."""
    return file.head.startswith(MAGIC) or file.path.suffix.lower() == ".parquet"


def read_run_file(file: InputFile) -> TraceFile:
    """The one trace of the file, named by the file's stem."""
    return TraceFile(file.path.stem, [RoutingTrace.read(file)])


def write_run_file(file: TraceFile, path: Path) -> None:
    """Writes the one trace; UsageError if there are several, each of which needs a file of its own."""
    if len(file.traces) != 1:
        raise UsageError(
            f"{path}: {len(file.traces)} traces in place of one", "Write each phase, variant and rank to a file of its own."
        )
    file.traces[0].write(path)


RUN_TRACE = TraceFormat(
    "run trace",
    "a file of its routing/ folder (*.parquet)",
    recognise=is_parquet,
    read=single(read_run_file),
    write=write_run_file,
    keeps=frozenset(COLUMNS.names),
)


def is_count_table(file: InputFile) -> bool:
    """Whether the file is a JSON object with counts in it."""
    text = file.head_text
    return text.lstrip().startswith("{") and '"counts"' in text


def read_count_file(file: InputFile) -> TraceFile:
    """The table, named by the file's stem."""
    return TraceFile(file.path.stem, counts=read_counts(file))


def write_count_file(file: TraceFile, path: Path) -> None:
    """Writes the counts; UsageError if the file has choices in place of counts."""
    if file.counts is None:
        raise UsageError(f"{path}: {file.name} holds choices of tokens, not counts", "Count the choices first.")
    write_counts(file.counts, path)


COUNT_TABLE = TraceFormat(
    "count table",
    "a count table (*.json)",
    recognise=is_count_table,
    read=single(read_count_file),
    write=write_count_file,
    loads_only=True,
)
