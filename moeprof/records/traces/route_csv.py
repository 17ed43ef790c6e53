"""The format `*.route.csv`: the routing log of BigMoeOnEdge, plain or packed, with the columns of batched decoding and of encoders.

Lines with `#` state `n_expert=E`, and `layer=L expert_bytes=B` for every layer. The others are one line per choice, columns by
name; `phase` 0 is prefill and 1 decode, and `step` is the token's absolute position, so every token of a chat has a step of its own.
A new chat in the same log restarts `step` and raises `turn`. `dropped` is 1 for an expert that was skipped, and never read.

Tokens of one `step` in several values of `sequence` are one batch, with the place of each in `position`; `domain` names their text.
With a column `stack` (`enc`, `dec`), which goes before the number of a layer, `phase` may also be 2, encode, or 3, score. After the
line `# step=pass` steps are forward passes, as moeprof writes them; each phase counts its own unless there is a line `# steps=shared`.
`# imported=` and JSON say what an earlier import left out.
"""

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moeprof.records.limits import MAX_EXPERTS, MAX_SIZE, whole_number
from moeprof.records.name import checked_name, name_from
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.system.parsing import parsed_json
from moeprof.records.traces.columns import NAMES, codes, with_columns
from moeprof.records.traces.csv_table import comments_of, header_of, line_of, table_of
from moeprof.records.traces.import_options import ImportOptions, ImportReport
from moeprof.records.traces.importing import agreed
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.route_csv_steps import numbered
from moeprof.records.traces.route_csv_writer import IMPORTED, PASSES, PHASES, SHARED, write_route_file
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, StepClock, TraceHeader
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NEEDED = {name: pa.int32() for name in ("phase", "step", "layer", "slot", "expert")}
OPTIONAL = {
    "turn": pa.int32(),
    "sequence": pa.int32(),
    "position": pa.int32(),
    "domain": NAMES,
    "stack": NAMES,
    "token_id": pa.int32(),
    "weight": pa.float32(),
    "dropped": pa.int8(),
    "residency": pa.int8(),
}
NAME = re.compile(r"(\.route)?(\.csv)?(\.gz|\.zst)?$", re.IGNORECASE)
"""The end of the file's name."""


def is_route_csv(file: InputFile) -> bool:
    """Whether the name or the header line is that of a route log."""
    ending = NAME.search(file.path.name)
    named = ending is not None and ending[1] and ending[2]
    return bool(named) or {*NEEDED} <= {*header_of(file.head_text)}


def read_route_files(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """One trace per phase that has rows, and the experts' sizes; rows keep their order. Without a column of domains, the file's stem
    is the domain."""
    file = only(files)
    with reported(
        f"route log {file.path}",
        f"Give a complete *.route.csv, plain or packed, with the columns {', '.join(NEEDED)}.",
    ):
        text, domain = file.text(), name_from(NAME.sub("", file.path.name), "trace")
        comments = comments_of(text)
        known = agreed("experts", stated(comments, "n_expert"), options.experts)
        top_k = agreed("choices of a token", stated(comments, "n_expert_used"), options.top_k)
        clock = clock_of(comments.splitlines())
        workloads = {checked_name(name) for name in re.findall(r"^# workload=(\S+)$", comments, re.MULTILINE)}
        read = traces_of(text, known, domain, top_k, clock=clock, workload=min(workloads, default="lm"))
        traces = [with_report(trace, comments) for trace in read]
        check_numbers([int(layer) for trace in traces for layer in trace.header.layers if layer.isdecimal()], options.layers)
        if options.strip_tokens:
            traces = [trace.without_token_ids() for trace in traces]
        return TraceFile(
            domain,
            traces,
            expert_bytes=expert_bytes_of(comments),
            experts_guessed=known is None,
            report=traces[0].header.imported,
        )


ROUTE_CSV = TraceFormat(
    "route-csv",
    "a route log (*.route.csv, plain or gzipped)",
    recognise=is_route_csv,
    read=read_route_files,
    write=write_route_file,
    keeps=frozenset([*COLUMNS.names, "phase", "expert_bytes"]),
    stacks=True,
    repeats=True,
    endings=(".route.csv",),
)


def traces_of(
    text: str,
    num_experts: int | None,
    domain: str,
    top_k: int | None = None,
    *,
    clock: StepClock | None = "token",
    workload: str = "lm",
) -> list[RoutingTrace]:
    """One trace per phase that has rows; without a number of experts, or of a token's choices, it is one more than the highest."""
    table = table_of(text, NEEDED, OPTIONAL)
    if not table.num_rows:
        raise ValueError("no choices in it")
    known = num_experts or int(np.max(table["expert"])) + 1
    choices = top_k or int(np.max(table["slot"])) + 1
    if choices > known:
        raise ValueError(f"a token has {choices} choices, but there are {known} experts")
    check(table, known, choices, text)
    table = with_domains(numbered(table) if clock == "token" else table, domain)
    report = ImportReport(format="route-csv", kept=int((table["slot"].to_numpy() == 0).sum()))
    header = TraceHeader(
        workload=workload,
        phase="prefill",
        variant="imported",
        num_experts=known,
        top_k=choices,
        layers=[],
        clock=clock,
        imported=report,
    )
    present = np.unique(table["phase"].to_numpy())
    return [trace_of(table, code, header) for code in PHASES if code in present]


def clock_of(lines: Sequence[str]) -> StepClock | None:
    """What the steps count by the lines with `#`: a step per token, unless one says that they are passes."""
    if PASSES not in lines:
        return "token"
    return "pass" if SHARED in lines else None


def with_report(trace: RoutingTrace, comments: str) -> RoutingTrace:
    """The trace with what a line with `#` says of an earlier import; ValueError if that is no report."""
    found = re.search(rf"^{IMPORTED}(.*)$", comments, re.MULTILINE)
    if not found or not trace.header.imported:
        return trace
    earlier = ImportReport.model_validate(parsed_json(found[1]))
    report = earlier.model_copy(update={"kept": trace.header.imported.kept})
    return RoutingTrace(trace.header.model_copy(update={"imported": report}), trace.table)


def expert_bytes_of(comments: str) -> dict[str, int]:
    """Bytes of one expert in each layer that the lines with `#` list."""
    pairs = re.findall(r"^\s*#\s*layer=(\d+)\s+expert_bytes=(\S+)", comments, re.MULTILINE)
    return {str(int(layer)): whole_number("expert_bytes", size, MAX_SIZE) for layer, size in pairs}


def stated(comments: str, name: str) -> int | None:
    """The number of experts, or of a token's choices, that a line with `#` states by name; None if none does."""
    found = sorted(set(re.findall(rf"\b{name}=(\S+)", comments)))
    if len(found) > 1:
        raise ValueError(f"{name} is both {found[0][:24]} and {found[1][:24]}")
    return whole_number(name, found[0], MAX_EXPERTS) if found else None


def check(table: pa.Table, num_experts: int, top_k: int, text: str) -> None:
    """ValueError, with its line in the text, for a value out of range."""
    limits = {
        "phase": len(PHASES) if "stack" in table.column_names else 2,
        "expert": num_experts,
        "residency": 3,
        "dropped": 2,
        "turn": None,
        "sequence": None,
        "position": None,
        "step": None,
        "layer": None,
        "slot": min(top_k, 127),
    }
    for name, limit in limits.items():
        if name in table.column_names:
            values = table[name].to_numpy()
            if len(wrong := np.flatnonzero((values < 0) | (values >= (limit or np.inf)))):
                why = "negative" if values[wrong[0]] < 0 else f"not below {limit}"
                raise ValueError(f"line {line_of(text, int(wrong[0]))}: {name} {values[wrong[0]]} is {why}")


def with_domains(table: pa.Table, domain: str) -> pa.Table:
    """The table with the names of domains and layers; one name of a domain for all rows unless it has a column of them."""
    if "domain" in table.column_names:
        for name in codes(table, "domain")[1]:
            checked_name(name)
    else:
        table = table.append_column("domain", pa.array(np.full(table.num_rows, domain)).dictionary_encode())
    layers = table["layer"].cast(pa.string())
    if "stack" in table.column_names:
        stacks = table["stack"].cast(pa.string())
        layers = pc.if_else(pc.equal(stacks, ""), layers, pc.binary_join_element_wise(stacks, layers, "."))
    return table.set_column(table.column_names.index("layer"), "layer", layers.combine_chunks().dictionary_encode())


def trace_of(table: pa.Table, phase: int, header: TraceHeader) -> RoutingTrace:
    """The rows of one phase as a trace."""
    rows = table.filter(pc.equal(table["phase"], phase))
    if "dropped" in rows.column_names and rows["dropped"].to_numpy().all():
        raise ValueError(f"every choice of phase {PHASES[phase]} was dropped")
    code_R, names = codes(rows, "layer")
    layers = sorted({checked_name(names[code]) for code in np.unique(code_R)}, key=by_stack)
    size = rows.num_rows
    filled = {
        "sequence": pa.array(np.zeros(size, np.int32)),
        "position": rows["step"],
        "token_id": pa.array(np.full(size, -1, np.int32)),
        "weight": pa.array(np.full(size, np.nan, np.float32)),
        "dropped": pa.array(np.zeros(size, bool)),
    }
    columns = filled | {name: rows[name] for name in rows.column_names if name in COLUMNS.names}
    named = header.model_copy(update={"phase": PHASES[phase], "layers": layers})
    return RoutingTrace(named, with_columns(pa.table(columns), COLUMNS)).validate()


def by_stack(layer: str) -> tuple[str, int]:
    """A sorting key: `3` before `12`, `dec.3` before `enc.1`."""
    stack, _, number = layer.rpartition(".")
    return stack, int(number)
