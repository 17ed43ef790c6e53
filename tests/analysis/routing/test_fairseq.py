"""fairseq's balance statistics agree with its Top2Gate, rewritten here in plain Python."""

import math
import statistics

import pytest
from hypothesis import given

from moeprof.analysis.routing.fairseq import fairseq_rows
from tests.analysis.traces import Row, drawn_rows, metrics_of, steps_of, trace_of, value_at


def test_the_top_fifth_takes_half_of_the_first_choices() -> None:
    rows = fairseq_rows(trace_of(steps_of([4, 4, 0, 1]), num_experts=5))
    assert value_at(rows, "expert1_balance_top", layer="1") == 50
    assert value_at(rows, "expert1_balance_bottom", layer="1") == 0
    assert value_at(rows, "unused_expert1_count", layer="1") == 2


def test_a_fifth_is_rounded_up_and_one_expert_is_both_top_and_bottom() -> None:
    six = fairseq_rows(trace_of(steps_of([0, 0, 1, 1, 2, 3]), num_experts=6))
    assert value_at(six, "expert1_balance_top", layer="1") == pytest.approx(100 * 4 / 6)
    one = fairseq_rows(trace_of(steps_of([0, 0]), num_experts=1))
    assert value_at(one, "expert1_balance_top") == value_at(one, "expert1_balance_bottom") == 100


def test_a_top_1_router_has_no_second_choices() -> None:
    assert metrics_of(fairseq_rows(trace_of(steps_of([0])))) == {
        "unused_expert1_count",
        "expert1_balance_top",
        "expert1_balance_bottom",
    }


def test_nothing_has_no_balance() -> None:
    assert fairseq_rows(trace_of([])) == []


@given(drawn_rows())
def test_balance_is_the_mean_over_steps_of_what_top2gate_logs(rows: list[Row]) -> None:
    trace = trace_of(rows, num_experts=5, layers=("1", "3"))
    found = fairseq_rows(trace)
    for layer in {row.layer for row in rows}:
        for slot in range(min(2, trace.header.top_k)):
            mine = [row for row in rows if (row.layer, row.slot) == (layer, slot)]
            logged = [logged_by_fairseq([row.expert for row in mine if row.step == step]) for step in {r.step for r in mine}]
            for metric, values in zip(("unused_expert{}_count", "expert{}_balance_top", "expert{}_balance_bottom"),
                                      zip(*logged, strict=True), strict=True):  # fmt: skip
                assert value_at(found, metric.format(slot + 1), layer=layer) == pytest.approx(statistics.mean(values))


def logged_by_fairseq(indices: list[int], num_experts: int = 5) -> tuple[float, float, float]:
    """Unused experts, and the percentages of the most and the least used 20% of them, of one step."""
    histogram = sorted((100 * indices.count(expert) / len(indices) for expert in range(num_experts)), reverse=True)
    sample_count = max(math.ceil(num_experts * 0.2), 1)
    return histogram.count(0), sum(histogram[:sample_count]), sum(histogram[-sample_count:])
