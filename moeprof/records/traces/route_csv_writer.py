"""Writes traces as a route log, which holds all that a trace says of a choice."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from moeprof.records.errors import UsageError
from moeprof.records.system.files import replacing
from moeprof.records.traces.routing_trace import RoutingTrace
from moeprof.records.traces.trace_format import TraceFile

PHASES = {0: "prefill", 1: "decode", 2: "encode", 3: "score"}
PASSES = "# step=pass"
"""The line of a log whose steps are forward passes and not positions."""

SHARED = "# steps=shared"
"""The line of a log of passes that are counted over all phases."""

IMPORTED = "# imported="
"""The beginning of the line with the report of an earlier import, as JSON."""


def write_route_file(file: TraceFile, path: Path) -> None:
    """Writes all phases; UsageError if one log cannot hold them."""
    check(file, path)
    tables = list(parts(file))
    with replacing(path) as partial, partial.open("wb") as out:
        out.write("".join(f"{line}\n" for line in preamble(file)).encode())
        options = pa.csv.WriteOptions(quoting_style="needed", quoting_header="none")
        pa.csv.write_csv(pa.concat_tables(tables).unify_dictionaries(), out, options)


def check(file: TraceFile, path: Path) -> None:
    """UsageError if a phase has no code in a route log, or traces of ranks or variants would have to share it."""
    codes = list(PHASES.values())
    phases = [trace.header.phase for trace in file.traces]
    if unknown := [phase for phase in phases if phase not in codes]:
        raise UsageError(f"{path}: a route log has no phase {unknown[0]!r}", f"It has {', '.join(codes)}.")
    if len(set(phases)) < len(phases):
        raise UsageError(
            f"{path}: {file.name} has several traces of phase {max(phases, key=phases.count)}",
            "Give the trace of one rank and variant; a route log cannot hold more.",
        )


def preamble(file: TraceFile) -> Iterator[str]:
    """The lines in front of the table."""
    header = file.traces[0].header
    yield "# route_trace v1"
    experts = "" if file.experts_guessed else f"n_expert={header.num_experts} "
    yield f"# {experts}n_expert_used={header.top_k}"
    yield f"# workload={header.workload}"
    if not file.as_logged:
        yield PASSES
        if file.shared_steps:
            yield SHARED
    if header.imported and header.imported.format != "route-csv":
        yield IMPORTED + header.imported.model_dump_json()
    yield from (f"# layer={layer} expert_bytes={size}" for layer, size in file.expert_bytes.items() if layer.isdecimal())


def parts(file: TraceFile) -> Iterator[pa.Table]:
    """The rows of each phase, with the columns that any of them needs."""
    needed = [
        name for name in ("weight", "residency", "dropped", "token_id") if any(says(trace, name) for trace in file.traces)
    ]
    for trace in file.traces:
        phase = list(PHASES.values()).index(trace.header.phase)
        layer_R, names = trace.codes("layer")
        stacks, numbers = zip(*(stack_and_number(name) for name in names), strict=True)
        columns = {"phase": pa.array(np.full(len(trace), phase, np.int8))}
        columns |= {name: trace.table[name] for name in ("step", "sequence", "position", "domain")}
        columns["stack"] = pa.DictionaryArray.from_arrays(pa.array(layer_R), pa.array(stacks))
        columns["layer"] = pa.array(np.array(numbers)[layer_R])
        columns |= {name: trace.table[name] for name in ("slot", "expert", *needed)}
        if "dropped" in columns:
            columns["dropped"] = columns["dropped"].cast(pa.int8())
        yield pa.table(columns)


def stack_and_number(layer: str) -> tuple[str, int]:
    """`enc.3`  ->  enc and 3; ValueError if a layer has no number."""
    stack, _, number = layer.rpartition(".")
    if not number.isdecimal():
        raise ValueError(f"layer {layer} has no number")
    return stack, int(number)


def says(trace: RoutingTrace, name: str) -> bool:
    """Whether a column holds more than what stands for unknown."""
    if name == "residency":
        return len(trace) > 0 and not trace.table[name].null_count
    values = trace.column(name)
    return bool((np.isfinite(values) if name == "weight" else values > 0 if name == "dropped" else values >= 0).any())
