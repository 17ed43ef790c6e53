"""metrics.csv: one tidy table, every number once, and every number back exactly."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.metrics.registry import COLUMNS, KEYS, METRICS, MetricRow, MetricTable, by_name

DESIGN = "workload,phase,domain,variant,point,rank,layer,region,category,metric,unit,kind,value"


def test_the_columns_are_exactly_those_of_the_design() -> None:
    assert ",".join(COLUMNS) == DESIGN
    assert ",".join(KEYS) == "workload,phase,domain,variant,point,rank,layer,region,category,metric"


def test_the_file_is_what_the_design_says(tmp_path: Path) -> None:
    table = MetricTable()
    table.extend(
        [
            MetricRow("waste_factor", 12.875, workload="lm", phase="score", variant="static", layer="3"),
            MetricRow("throughput", 0.1 + 0.2, workload="mt", domain='a "b", c', point="batch=8;slots=10", rank="0"),
        ]
    )
    table.write(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_bytes().decode() == (
        f"{DESIGN}\n"
        "lm,score,,static,,,3,,,waste_factor,ratio,routed,12.875\n"
        'mt,,"a ""b"", c",,batch=8;slots=10,0,,,,throughput,tokens/s,timed,0.30000000000000004\n'
    )


def test_a_metric_that_is_defined_twice_is_refused_with_both_formulas() -> None:
    one = METRICS["steps"]
    other = replace(one, formula="steps of a test")
    assert by_name([one, METRICS["fits"]]) == {"steps": one, "fits": METRICS["fits"]}
    with pytest.raises(ValueError, match=f"steps is defined twice: '{one.formula}' and 'steps of a test'"):
        by_name([one, METRICS["fits"], other])


def test_the_registry_names_each_metric_with_its_unit_and_which_way_is_better() -> None:
    expected = {
        "throughput": ("tokens/s", "higher", "timed"),
        "step_latency": ("ns", "lower", "timed"),
        "waste_factor": ("ratio", "lower", "routed"),
        "expert_slots": ("slots", "lower", "routed"),
        "dropped_fraction": ("fraction", "lower", "routed"),
        "overflow_expert1": ("percent", "lower", "routed"),
        "overflow_expert2": ("percent", "lower", "routed"),
        "active_experts": ("experts", "neither", "routed"),
        "memory_static": ("bytes", "lower", "exact"),
    }
    assert {name: (m.unit, m.better, m.kind) for name, m in METRICS.items() if name in expected} == expected
    assert all(name == metric.name and metric.unit and metric.formula for name, metric in METRICS.items())


@pytest.mark.parametrize("name", ["throughput", "max_throughput", "speedup_equal_batch", "speedup_max_throughput"])
def test_the_ends_of_an_interval_are_metrics_like_the_one_between(name: str) -> None:
    metric, low, high = (METRICS[name + end] for end in ("", "_low", "_high"))
    assert {(m.unit, m.better, m.kind) for m in (metric, low, high)} == {(metric.unit, "higher", "timed")}
    assert low.formula == f"lower end of the 95% interval of {name}"
    assert high.formula == f"upper end of the 95% interval of {name}"


@pytest.mark.parametrize(
    ("metric", "kind"), [("dead_experts", "forced"), ("waste_factor", "forced"), ("throughput", "timed"), ("capacity", "exact")]
)
def test_forced_routing_marks_what_depends_on_it(metric: str, kind: str) -> None:
    assert MetricRow(metric, 1.0, forced=True).kind == kind
    assert MetricRow(metric, 1.0).kind == METRICS[metric].kind


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises((KeyError, ValueError), match="speed"):
        MetricRow("speed", 1.0).cells()


def test_the_same_address_twice_is_refused_whatever_the_value() -> None:
    table = MetricTable()
    table.extend([MetricRow("capacity", 1.0, workload="lm", layer="1"), MetricRow("capacity", 1.0, workload="lm", layer="3")])
    with pytest.raises(ValueError, match="capacity is recorded twice"):
        table.extend([MetricRow("capacity", 2.0, workload="lm", layer="1")])
    assert [row.layer for row in table.rows] == ["1", "3"]


def record_and_write(table: MetricTable, row: MetricRow, path: Path) -> None:
    table.extend([row])
    table.write(path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_not_recorded(tmp_path: Path, value: float) -> None:
    table = MetricTable()
    with pytest.raises(ValueError, match=f"capacity is {value}: a number that cannot be computed must be omitted"):
        record_and_write(table, MetricRow("capacity", value), tmp_path / "metrics.csv")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
@settings(deadline=None, max_examples=60)
def test_every_float_is_read_back_exactly(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    table = MetricTable()
    table.extend(MetricRow("throughput", value, layer=str(index)) for index, value in enumerate(values))
    path = tmp_path_factory.mktemp("metrics") / "metrics.csv"
    table.write(path)
    with path.open(newline="", encoding="utf-8") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == values


@pytest.mark.parametrize("value", [np.float64(0.1), np.float32(0.5), np.int64(3), 3])
def test_numbers_of_numpy_and_whole_numbers_are_written_as_numbers(value: float) -> None:
    assert float(MetricRow("capacity", value).cells()[-1]) == float(value)


def test_an_empty_table_has_a_header(tmp_path: Path) -> None:
    MetricTable().write(tmp_path / "metrics.csv")
    assert (tmp_path / "metrics.csv").read_text() == DESIGN + "\n"
