"""The two formats that moeprof defines itself: the routing traces of a run, and tables of expert counts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.files import replacing_folder
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.columns import MAGIC
from moeprof.records.traces.count_table import read_counts, write_counts
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import agreed
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

REMOVE = "Remove --experts, --top-k, --layers or --model-config, or correct them."
"""The remedy if the options and the file contradict each other."""


def is_parquet(file: InputFile) -> bool:
    """Whether the file starts as a Parquet file does, or is named as one."""
    return file.head.startswith(MAGIC) or file.path.suffix.lower() == ".parquet"


def read_run_files(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The trace of every file, named by the file's stem or by the folder of several.

    UsageError if two are of the same rank, or the user states other layers, experts or choices of a token.
    """
    traces: dict[tuple[str, str, int], RoutingTrace] = {}
    for file in files:
        trace = RoutingTrace.read(file)
        with reported(f"routing trace {file.path}", REMOVE):
            agreed("choices of a token", trace.header.top_k, options.top_k)
            agreed("experts", trace.header.num_experts, options.experts)
            check_numbers([int(layer) for layer in trace.header.layers if layer.isdecimal()], options.layers)
        key = (trace.header.phase, trace.header.variant, trace.header.rank)
        if key in traces:
            raise UsageError(
                f"trace {file.path}: a second trace of {key[0]}, {key[1]}, rank {key[2]}", "Give each file of a recording once."
            )
        traces[key] = trace
    first = files[0].path
    return TraceFile(
        first.stem if len(files) == 1 else first.absolute().parent.name, list(traces.values()), report=trace.header.imported
    )


def write_run_files(file: TraceFile, path: Path) -> None:
    """Writes the one trace to a file *.parquet, or every phase, variant and rank to a file of its own in a folder."""
    if len(file.traces) == 1 and path.suffix == ".parquet":
        file.traces[0].write(path)
        return
    if path.suffix == ".parquet":
        raise ValueError(f"a *.parquet holds one phase of one rank, and there are {len(file.traces)} traces; name a folder")
    if path.exists() and not (path.is_dir() and all(one.suffix == ".parquet" for one in path.iterdir())):
        raise ValueError(f"{path} holds more than traces, so it is not replaced")
    with replacing_folder(path) as partial:
        for trace in file.traces:
            trace.write(partial / trace.file_name)


RUN_TRACE = TraceFormat(
    "run",
    "a file of its routing/ folder (*.parquet)",
    recognise=is_parquet,
    read=read_run_files,
    write=write_run_files,
    keeps=frozenset([*COLUMNS.names, "phase"]),
    stacks=True,
    repeats=True,
    endings=(".parquet",),
)


def is_count_table(file: InputFile) -> bool:
    """Whether the file is a JSON object with counts in it."""
    text = file.head_text
    return text.lstrip().startswith("{") and '"counts"' in text


def read_count_file(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The table, named by the file's stem; UsageError if it states other choices of a token, experts or layers than the user."""
    file = only(files)
    counts = read_counts(file)
    with reported(f"count table {file.path}", REMOVE):
        agreed("experts", counts.num_experts, options.experts)
        counts = replace(counts, top_k=agreed("choices of a token", counts.top_k, options.top_k))
        check_numbers(counts.layers, options.layers)
    return TraceFile(file.path.stem, counts=counts)


def write_count_file(file: TraceFile, path: Path) -> None:
    """Writes the totals of the counts; ValueError if there are only choices."""
    if file.counts is None:
        raise ValueError(f"{file.name} holds choices of tokens, not counts")
    write_counts(file.counts, path)


COUNT_TABLE = TraceFormat(
    "counts",
    "a count table (*.json)",
    recognise=is_count_table,
    read=read_count_file,
    write=write_count_file,
    keeps=frozenset(["domain"]),
    endings=(".counts.json",),
    loads_only=True,
)
