"""Traffic of a few collectives, written out by hand."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from moeprof.records.traces.traffic import COLUMNS, Traffic, joined

Times = tuple[int, int, int]


def rows_of(
    bytes_NN: Sequence[Sequence[int]], times_N: Sequence[Times], *, op_id: int = 0, **changes: Any
) -> list[dict[str, Any]]:
    """One collective: bytes from row to column, and when each rank started it, waited for it and had it done."""
    usual = {"variant": "static", "point": "", "round": 0, "phase": "score", "domain": "prose", "step": 0, "layer": "1"}
    return [
        usual
        | {"region": "a2a_dispatch", "rank": rank, "op_id": op_id, "source": rank, "destination": to, "bytes": size}
        | dict(zip(("start_ns", "wait_ns", "end_ns"), times_N[rank], strict=True))
        | changes
        for rank, sizes in enumerate(bytes_NN)
        for to, size in enumerate(sizes)
    ]


def table_of(rows: Sequence[dict[str, Any]]) -> pa.Table:
    """Rows as the recorder leaves them."""
    return pa.Table.from_pylist(rows, schema=COLUMNS)


def traffic_of(*collectives: Sequence[dict[str, Any]]) -> Traffic:
    """Several collectives in one file."""
    return joined([table_of(rows) for rows in collectives])
