"""The format `*.route.csv`: the routing log of BigMoeOnEdge, plain or gzipped.

Lines with `#` come first: `n_expert=E`, and `layer=L expert_bytes=B` for every layer. Then one line per choice, columns by
name; `phase` 0 is prefill and 1 decode, and `step` is the token's absolute position, so every token of a chat has a step of
its own. A new chat in the same log restarts `step` and raises `turn`. `dropped` is 1 for an expert that was skipped, and never read.
"""

import gzip
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_EXPERTS, MAX_SIZE, whole_number
from moeprof.records.name import name_from
from moeprof.records.traces.columns import with_columns
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

PHASES = {0: "prefill", 1: "decode"}
NEEDED = {name: pa.int32() for name in ("phase", "step", "layer", "slot", "expert")}
OPTIONAL = {
    "turn": pa.int32(),
    "token_id": pa.int32(),
    "weight": pa.float32(),
    "dropped": pa.int8(),
    "residency": pa.int8(),
}
GZIP = b"\x1f\x8b"


def is_route_csv(head: bytes, path: Path) -> bool:
    """Whether the name or the header line is that of a route log; a gzipped file is recognised by the text inside."""
    if path.name.endswith((".route.csv", ".route.csv.gz")):
        return True
    try:
        text = zlib.decompressobj(wbits=31).decompress(head) if head.startswith(GZIP) else head
    except zlib.error:
        return False
    header = re.sub(rb"\A(?:#[^\n]*\n)*", b"", text).split(b"\n", 1)[0].strip().split(b",")
    return {name.encode() for name in NEEDED} <= set(header)


def read_route_file(path: Path) -> TraceFile:
    """The traces of both phases, and the experts' number and sizes from the preamble."""
    with reported(path):
        preamble, text = split_preamble(path)
        known, domain = preamble_experts(preamble), domain_of(path)
        traces, sizes = traces_of(text, known, domain), expert_bytes_of(preamble)
    return TraceFile(domain, traces, expert_bytes=sizes, experts_guessed=known is None, as_logged=True)


ROUTE_CSV = TraceFormat(
    "route log", "a route log (*.route.csv, plain or gzipped)", recognise=is_route_csv, read=read_route_file
)


def read_route_csv(path: Path, num_experts: int | None = None) -> list[RoutingTrace]:
    """One trace per phase that has rows; the domain is the file's stem, and rows keep their order.

    `num_experts` defaults to the number in the preamble, or else to one more than the highest expert in the file. UsageError if the
    file cannot be read, lacks a column, or has ids out of range.
    """
    with reported(path):
        preamble, text = split_preamble(path)
        return traces_of(text, num_experts or preamble_experts(preamble), domain_of(path))


def read_expert_bytes(path: Path) -> dict[str, int]:
    """Bytes of one expert in each layer, from the preamble; {} if it does not state them."""
    with reported(path):
        return expert_bytes_of(split_preamble(path)[0])


@contextmanager
def reported(path: Path) -> Iterator[None]:
    """Turns the error of a file that cannot be read into a UsageError, with its cause in one line."""
    try:
        yield
    except (OSError, EOFError, zlib.error, pa.ArrowException, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0]
        raise UsageError(
            f"route log {path}: {reason[:1].lower()}{reason[1:]}",
            f"Give a complete *.route.csv, plain or gzipped, with the columns {', '.join(NEEDED)}.",
        ) from error


def traces_of(text: bytes, num_experts: int | None, domain: str) -> list[RoutingTrace]:
    """One trace per phase that has rows; without a number of experts it is one more than the highest expert."""
    table = choices(text)
    known = num_experts or int(np.max(table["expert"])) + 1
    check(table, known)
    table = numbered(table)
    return [trace_of(table, code, known, domain) for code in PHASES if code in table["phase"].to_numpy()]


def expert_bytes_of(preamble: str) -> dict[str, int]:
    """Bytes of one expert in each layer that the preamble lists."""
    pairs = re.findall(r"^#\s*layer=(\d+)\s+expert_bytes=(\S+)", preamble, re.MULTILINE)
    return {str(int(layer)): whole_number("expert_bytes", size, MAX_SIZE) for layer, size in pairs}


def domain_of(path: Path) -> str:
    """The file's name without `.route.csv` or `.gz`, as a name."""
    return name_from(re.sub(r"(\.route)?(\.csv)?(\.gz)?$", "", path.name), "trace")


def split_preamble(path: Path) -> tuple[str, bytes]:
    """The lines with `#` at the start of the file, and the table after them."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    end = re.match(rb"(?:#[^\n]*(?:\n|\Z))*", data)
    preamble = end[0] if end else b""
    return preamble.decode("utf-8"), data[len(preamble) :]


def preamble_experts(preamble: str) -> int | None:
    """The number of experts E, or None if the preamble does not state it."""
    match = re.search(r"\bn_expert=(\d+)", preamble)
    return whole_number("n_expert", match[1], MAX_EXPERTS) if match else None


def choices(text: bytes) -> pa.Table:
    """The needed columns and the optional ones that are present; ValueError if one is missing or there are no rows."""
    header = text.split(b"\n", 1)[0].decode("utf-8").strip().split(",")
    if missing := [name for name in NEEDED if name not in header]:
        raise ValueError(f"column {missing[0]!r} is missing")
    kinds = {name: kind for name, kind in (NEEDED | OPTIONAL).items() if name in header}
    options = pa.csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[])
    try:
        table = pa.csv.read_csv(pa.BufferReader(text), convert_options=options)
    except pa.ArrowInvalid as error:
        named = re.sub(r"^In CSV column #(\d+)", lambda match: f"column {header[int(match[1])]!r}", str(error))
        raise ValueError(named) from error
    if not table.num_rows:
        raise ValueError("no choices in it")
    return table


def check(table: pa.Table, num_experts: int) -> None:
    """ValueError for a value out of range."""
    limits = {
        "phase": len(PHASES),
        "expert": num_experts,
        "residency": 3,
        "dropped": 2,
        "turn": None,
        "step": None,
        "layer": None,
        "slot": 127,
    }
    for name, limit in limits.items():
        if name in table.column_names:
            values = table[name].to_numpy()
            wrong = values[(values < 0) | (values >= (limit or np.inf))]
            if len(wrong):
                raise ValueError(f"{name} {wrong[0]} is {'negative' if wrong[0] < 0 else f'not below {limit}'}")


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


def trace_of(table: pa.Table, phase: int, num_experts: int, domain: str) -> RoutingTrace:
    """The rows of one phase as a trace."""
    rows = table.filter(pc.equal(table["phase"], phase))
    if "dropped" in rows.column_names and rows["dropped"].to_numpy().all():
        raise ValueError(f"every choice of phase {PHASES[phase]} was dropped")
    header = TraceHeader(
        workload="lm",
        phase=PHASES[phase],
        variant="imported",
        num_experts=num_experts,
        top_k=int(np.max(table["slot"])) + 1,
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
