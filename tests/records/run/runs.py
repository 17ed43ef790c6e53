"""Small runs, each with one throughput, one exact and one routed number, and a trace of five decisions."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

import pyarrow as pa
import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.metrics.row import Address
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import RawTable
from moeprof.records.run.run import Environment, Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader

CHOICES = [(0, 0, 0, "1", 0, 3), (0, 0, 0, "1", 1, 2), (0, 0, 1, "1", 0, 1), (0, 0, 0, "3", 0, 0), (1, 0, 2, "3", 0, 2)]
"""Step, sequence, position, layer, slot, expert."""


def trace_of(
    choices: Sequence[tuple[Any, ...]] = CHOICES, *, phase: str = "score", rank: int = 0, **columns: Any
) -> RoutingTrace:
    """Decisions; of the other columns every cell is the same."""
    header = TraceHeader(workload="lm", phase=phase, variant="static", rank=rank, num_experts=4, top_k=2, layers=["1", "3"])
    names = ("step", "sequence", "position", "layer", "slot", "expert")
    other = {"token_id": 65, "weight": 0.5, "domain": "prose", "dropped": False, "residency": None} | columns
    rows = [dict(zip(names, choice, strict=True)) | other for choice in choices]
    return RoutingTrace(header, pa.Table.from_pylist(rows, schema=COLUMNS)).validate()


def run_of(
    path: Path,
    rounds: Sequence[float] = (900, 1000, 1100),
    *,
    value: float = 1000,
    memory: float = 4096,
    dropped: float = 0.25,
    traces: Sequence[RoutingTrace] | None = None,
    overrides: Sequence[str] = (),
    recipe: str = "lm-tiny",
    reasons: Sequence[str] = (),
    **record: Any,
) -> Run:
    """A small finished run."""
    usual: dict[str, Any] = {"command": "characterize", "text_hashes": {"prose": "a" * 64}, "weights_hash": "c" * 64}
    usual["environment"] = Environment(cpu="Example 9000", cores=2, threads=1, packages={"torch": "2.13.0"}, hostname="here")
    writer = RunWriter(path, RunRecord(recipe=load_recipe(recipe, list(overrides)), **(usual | record)))
    row = MetricRow("throughput", value, "lm", "score", variant="static")
    writer.add_metrics([row, MetricRow("memory_static", memory, "lm")])
    writer.add_metrics([MetricRow("dropped_fraction", dropped, "lm", "score", variant="static")])
    writer.add_metrics([latency := MetricRow("step_latency", 7, "lm", "score", variant="static")])
    writer.add_samples(latency, [6, 7, 8])
    writer.add_samples(row, rounds)
    for trace in [trace_of()] if traces is None else traces:
        writer.add_trace(trace)
    return writer.finish(*reasons)


def raw_run(path: Path, tables: Mapping[RawTable, Sequence[Mapping[str, Any]]], **changes: Any) -> Run:
    """A run of which nothing but raw tables were recorded; a cell that a row leaves out is empty, 0 or false."""
    writer = RunWriter(path, record(**changes))
    for table, rows in tables.items():
        usual = (dict.fromkeys(names, value) for names, value in ((table.strings, ""), (table.integers, 0)))
        empty = {name: value for part in usual for name, value in part.items()} | dict.fromkeys(table.booleans, False)
        writer.append(table, pa.Table.from_pylist([empty | dict(row) for row in rows], schema=table.schema))
    return Run(path, writer.record)


def labelled(*variants: Variant) -> list[dict[str, Any]]:
    """Variants as a run record keeps them."""
    return [{"label": variant.label, **asdict(variant)} for variant in variants]


def value_of(run: Run, metric: str, **keys: Unpack[Address]) -> float | None:
    """The number at this address, or None."""
    return RunMetrics.of(run).or_none(metric, **keys)


def fault(call: Any) -> str:
    """What a UsageError says, in its first line of two."""
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).count("\n") == 1
    return caught.value.what


def record(**changes: Any) -> RunRecord:
    return RunRecord(**({"command": "characterize", "recipe": load_recipe("lm-tiny")} | changes))


def empty_trace(phase: str = "score", variant: str = "static", rank: int = 0) -> RoutingTrace:
    header = TraceHeader(workload="lm", phase=phase, variant=variant, rank=rank, num_experts=4, top_k=2, layers=["1"])
    return RoutingTrace(header, COLUMNS.empty_table())


def finished(path: Path) -> Path:
    """A small finished run."""
    writer = RunWriter(path, record(argv=["moeprof", "characterize"], text_hashes={"wiki": "abc"}))
    row = MetricRow("throughput", 0.1 + 0.2, workload="lm", phase="score", variant="static")
    writer.add_metrics([row, MetricRow("waste_factor", 12.8, workload="lm", layer="1")])
    writer.add_samples(row, [0.25, 0.5])
    writer.add_trace(empty_trace())
    writer.finish()
    return path


def edited(path: Path, **changes: Any) -> Path:
    """The run with keys of run.json changed; None removes one."""
    document = json.loads((path / "run.json").read_text()) | changes
    (path / "run.json").write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path
