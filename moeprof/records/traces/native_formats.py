"""The two formats that moeprof defines itself: the routing traces of a run, and tables of expert counts."""

from pathlib import Path

from moeprof.records.traces.count_table import CountTable
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile, TraceFormat


def is_parquet(head: bytes, path: Path) -> bool:
    """Whether the file starts as a Parquet file does, or is named as one."""
    return head.startswith(b"PAR1") or path.suffix == ".parquet"


def read_run_file(path: Path) -> TraceFile:
    """The one trace of the file, named by the file's stem."""
    return TraceFile(path.stem, [RoutingTrace.read(path)])


RUN_TRACE = TraceFormat(
    "run trace",
    "a file of its routing/ folder (*.parquet)",
    recognise=is_parquet,
    read=read_run_file,
    write=RoutingTrace.write,
)


def is_count_table(head: bytes, path: Path) -> bool:
    """Whether the file is a JSON object with counts in it, or at least named as JSON."""
    return path.suffix == ".json" or (head.lstrip().startswith(b"{") and b'"counts"' in head)


def read_count_file(path: Path) -> TraceFile:
    """The table, named by the file's stem."""
    return TraceFile(path.stem, counts=CountTable.read(path))


COUNT_TABLE = TraceFormat(
    "count table",
    "a count table (*.json, for --balance only)",
    recognise=is_count_table,
    read=read_count_file,
    loads_only=True,
)
