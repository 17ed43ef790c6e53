"""The format `*.route.csv`: the routing log of BigMoeOnEdge, plain or gzipped.

Lines with `#` state `n_expert=E`, and `layer=L expert_bytes=B` for every layer. The others are one line per choice, columns by
name; `phase` 0 is prefill and 1 decode, and `step` is the token's absolute position, so every token of a chat has a step of
its own. A new chat in the same log restarts `step` and raises `turn`. `dropped` is 1 for an expert that was skipped, and never read.
"""

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moeprof.records.limits import MAX_EXPERTS, MAX_SIZE, whole_number
from moeprof.records.name import name_from
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.columns import with_columns
from moeprof.records.traces.csv_table import comments_of, header_of, line_of, table_of
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, single

PHASES = {0: "prefill", 1: "decode"}
NEEDED = {name: pa.int32() for name in ("phase", "step", "layer", "slot", "expert")}
OPTIONAL = {
    "turn": pa.int32(),
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


def read_route_file(file: InputFile) -> TraceFile:
    """One trace per phase that has rows, and the experts' sizes; the domain is the file's stem, and rows keep their order."""
    with reported(
        f"route log {file.path}",
        f"Give a complete *.route.csv, plain or gzipped, with the columns {', '.join(NEEDED)}.",
    ):
        text, domain = file.text(), name_from(NAME.sub("", file.path.name), "trace")
        comments = comments_of(text)
        known, sizes = stated(comments, "n_expert"), expert_bytes_of(comments)
        traces = traces_of(text, known, domain, stated(comments, "n_expert_used"))
        return TraceFile(domain, traces, expert_bytes=sizes, experts_guessed=known is None, as_logged=True)


ROUTE_CSV = TraceFormat(
    "route-csv", "a route log (*.route.csv, plain or gzipped)", recognise=is_route_csv, read=single(read_route_file)
)


def traces_of(text: str, num_experts: int | None, domain: str, top_k: int | None = None) -> list[RoutingTrace]:
    """One trace per phase that has rows; without a number of experts, or of a token's choices, it is one more than the highest."""
    table = table_of(text, NEEDED, OPTIONAL)
    if not table.num_rows:
        raise ValueError("no choices in it")
    known = num_experts or int(np.max(table["expert"])) + 1
    choices = top_k or int(np.max(table["slot"])) + 1
    if choices > known:
        raise ValueError(f"a token has {choices} choices, but there are {known} experts")
    check(table, known, choices, text)
    table = numbered(table)
    return [trace_of(table, code, known, choices, domain) for code in PHASES if code in table["phase"].to_numpy()]


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
        "phase": len(PHASES),
        "expert": num_experts,
        "residency": 3,
        "dropped": 2,
        "turn": None,
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


def numbered(table: pa.Table) -> pa.Table:
    """The table with the number of the chat as `sequence`, `position`, and steps that count over all chats.

    Turns 0, 1, 2 with steps 0 to 5, 6 to 9, 0 to 3  ->  sequences 0, 0, 1 with steps 0 to 5, 6 to 9, 10 to 13
    """
    position_R = table["step"].to_numpy().astype(np.int64)
    turn_R = table["turn"].to_numpy() if "turn" in table.column_names else np.zeros(len(position_R), np.int32)
    turns, place_R = np.unique(turn_R, return_inverse=True)
    first_T, last_T = np.full(len(turns), np.iinfo(np.int64).max), np.full(len(turns), -1)
    np.minimum.at(first_T, place_R, position_R)
    np.maximum.at(last_T, place_R, position_R)
    restarts_T = np.append(False, first_T[1:] <= last_T[:-1])
    shift_T = np.cumsum(np.where(restarts_T, np.append(0, last_T[:-1]) + 1 - first_T, 0))
    columns = {"step": position_R + shift_T[place_R], "sequence": np.cumsum(restarts_T)[place_R], "position": position_R}
    others = {name: table[name] for name in table.column_names if name != "step"}
    return pa.table(others | {name: pa.array(values) for name, values in columns.items()})


def trace_of(table: pa.Table, phase: int, num_experts: int, top_k: int, domain: str) -> RoutingTrace:
    """The rows of one phase as a trace."""
    rows = table.filter(pc.equal(table["phase"], phase))
    if "dropped" in rows.column_names and rows["dropped"].to_numpy().all():
        raise ValueError(f"every choice of phase {PHASES[phase]} was dropped")
    header = TraceHeader(
        workload="lm",
        phase=PHASES[phase],
        variant="imported",
        num_experts=num_experts,
        top_k=top_k,
        layers=[str(layer) for layer in np.unique(rows["layer"])],
    )
    size = rows.num_rows
    filled = {
        "token_id": pa.array(np.full(size, -1, np.int32)),
        "weight": pa.array(np.full(size, np.nan, np.float32)),
        "domain": pa.array(np.full(size, domain)).dictionary_encode(),
        "dropped": pa.array(np.zeros(size, bool)),
    }
    columns = filled | {name: rows[name] for name in rows.column_names if name in COLUMNS.names}
    columns["layer"] = rows["layer"].cast(pa.string()).dictionary_encode()
    return RoutingTrace(header, with_columns(pa.table(columns), COLUMNS)).validate()
