"""The two formats that moeprof defines itself: the routing traces of a run, and tables of expert counts."""

from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.columns import MAGIC
from moeprof.records.traces.count_table import read_counts
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, single


def is_parquet(file: InputFile) -> bool:
    """Whether the file starts as a Parquet file does, or is named as one."""
    return file.head.startswith(MAGIC) or file.path.suffix.lower() == ".parquet"


def read_run_file(file: InputFile) -> TraceFile:
    """The one trace of the file, named by the file's stem."""
    return TraceFile(file.path.stem, [RoutingTrace.read(file)])


RUN_TRACE = TraceFormat(
    "run trace",
    "a file of its routing/ folder (*.parquet)",
    recognise=is_parquet,
    read=single(read_run_file),
    write=RoutingTrace.write,
)


def is_count_table(file: InputFile) -> bool:
    """Whether the file is a JSON object with counts in it."""
    text = file.head_text
    return text.lstrip().startswith("{") and '"counts"' in text


def read_count_file(file: InputFile) -> TraceFile:
    """The table, named by the file's stem."""
    return TraceFile(file.path.stem, counts=read_counts(file))


COUNT_TABLE = TraceFormat(
    "count table",
    "a count table (*.json)",
    recognise=is_count_table,
    read=single(read_count_file),
    loads_only=True,
)
