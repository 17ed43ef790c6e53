"""A trace of another engine gets the rows that a run of ours gets, from the same functions."""

from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.analysis.routing.analyses import analysis_rows
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.formats import read_routing
from moeprof.records.traces.routing_trace import RoutingTrace
from tests.analysis.traces import Row, metrics_of, trace_of, value_at
from tests.studies.replay.logs import route_log

STEPS = [[0, 1], [2, 1], [0, 3], [0, 1]]


def of_phase(rows: list[MetricRow], phase: str) -> list[MetricRow]:
    """The rows of one phase."""
    return [row for row in rows if row.phase == phase]


def test_a_route_log_has_loads_sparsity_and_locality_by_hand(tmp_path: Path) -> None:
    rows = list(analysis_rows(read_routing(route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2]]))))
    decode = of_phase(rows, "decode")
    assert value_at(decode, "active_experts", layer="0") == 2
    assert value_at(decode, "load_max_over_mean", layer="0") == 3 * 4 / 8  # expert 0 has 3 of 8 choices, experts are 4
    # of 0 1 | 2 1 | 0 3 | 0 1 consecutive steps share one of three, none of four, one of three
    assert value_at(decode, "active_jaccard", layer="0") == pytest.approx((1 / 3 + 0 + 1 / 3) / 3)
    assert value_at(of_phase(rows, "prefill"), "steps") == 1
    assert {row.variant for row in rows} == {"imported"}


def test_a_trace_of_two_domains_has_drift() -> None:
    rows = list(analysis_rows([trace_of([Row(0, 1, domain="prose"), Row(1, 2, domain="code")])]))
    assert value_at(rows, "hot_jaccard", category="prose vs code") == 0
    assert "active_experts" in metrics_of(rows)


def test_ranks_run_their_steps_together() -> None:
    one, other = trace_of([Row(0, 1), Row(1, 1)]), trace_of([Row(0, 2), Row(1, 1)])
    second = RoutingTrace(other.header.model_copy(update={"rank": 1}), other.table)
    rows = list(analysis_rows([second, one]))
    assert value_at(rows, "active_experts") == (2 + 1) / 2
    assert [replace(row, value=0) for row in rows] == [replace(row, value=0) for row in analysis_rows([one])]
