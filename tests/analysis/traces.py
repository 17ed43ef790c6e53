"""Small routing traces: written by hand, or drawn by hypothesis."""

from typing import NamedTuple

import pyarrow as pa
from hypothesis import strategies as st

from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader


class Row(NamedTuple):
    """One choice of one token."""

    step: int
    expert: int
    slot: int = 0
    layer: str = "1"
    domain: str = "prose"
    sequence: int = 0
    position: int = 0
    dropped: bool = False


def trace_of(rows: list[Row], *, num_experts: int = 4, layers: tuple[str, ...] = ("1",), forced: bool = False) -> RoutingTrace:
    """A trace whose header fits the rows."""
    top_k = max((row.slot for row in rows), default=0) + 1
    header = TraceHeader(
        workload="lm",
        phase="decode",
        variant="static",
        num_experts=num_experts,
        top_k=top_k,
        layers=list(layers),
        forced=forced,
    )
    columns = [row._asdict() | {"token_id": -1, "weight": 0.5, "residency": None} for row in rows]
    return RoutingTrace(header, pa.Table.from_pylist(columns, schema=COLUMNS)).validate()


def steps_of(*experts: list[int], layer: str = "1", domain: str = "prose") -> list[Row]:
    """Top-1 decode steps: in step i one token for every expert in the i-th list."""
    return [
        Row(step, expert, layer=layer, domain=domain, sequence=token)
        for step, chosen in enumerate(experts)
        for token, expert in enumerate(chosen)
    ]


@st.composite
def drawn_rows(draw: st.DrawFn, *, num_experts: int = 5, layers: tuple[str, ...] = ("1", "3")) -> list[Row]:
    """Steps of several tokens with distinct choices; some layers and domains stay without tokens in some steps."""
    top_k = draw(st.integers(1, 3))
    rows = []
    for step in sorted(draw(st.sets(st.integers(0, 9), max_size=5))):
        for token in range(draw(st.integers(0, 4))):
            domain = draw(st.sampled_from(["prose", "code", "law"]))
            for layer in draw(st.sets(st.sampled_from(layers))):
                experts = draw(st.permutations(range(num_experts)))[:top_k]
                for slot, expert in enumerate(experts):
                    dropped = draw(st.booleans())
                    rows.append(Row(step, expert, slot, layer, domain, token // 2, step + token % 2, dropped))
    return rows


def value_at(rows: list[MetricRow], metric: str, **address: str) -> float:
    """The one number at an address; keys not named are empty."""
    wanted = {"layer": "", "domain": "", "category": "", **address}
    found = [row.value for row in rows if row.metric == metric and all(getattr(row, key) == wanted[key] for key in wanted)]
    assert len(found) == 1, f"{len(found)} rows of {metric} at {wanted}"
    return found[0]


def metrics_of(rows: list[MetricRow]) -> set[str]:
    """The metrics that have a row."""
    return {row.metric for row in rows}
