"""Routing metrics agree with loops over the rows, per layer first and only then over layers."""

import math
import statistics
from collections import Counter

import pytest
from hypothesis import given

from moeprof.analysis.routing.metrics import routing_rows
from moeprof.records.metrics.registry import METRICS, MetricTable
from tests.analysis.traces import Row, drawn_rows, metrics_of, steps_of, trace_of, value_at

LAYERS = ("1", "3")


def test_one_hot_expert_and_three_idle_ones() -> None:
    rows = routing_rows(trace_of(steps_of([2, 2, 2], [2])))
    assert value_at(rows, "active_experts", layer="1") == 1
    assert value_at(rows, "inactive_fraction", layer="1") == 0.75
    assert value_at(rows, "dead_experts", layer="1") == 3
    assert value_at(rows, "load_max_over_mean", layer="1") == 4
    assert value_at(rows, "load_cv", layer="1") == pytest.approx(math.sqrt(3))
    assert value_at(rows, "hottest_share", layer="1") == 1
    assert value_at(rows, "step_tokens", layer="1") == 2
    assert value_at(rows, "active_bound", layer="1") == 2


def test_perfect_balance_has_no_variation() -> None:
    rows = routing_rows(trace_of(steps_of([0, 1], [2, 3])))
    assert value_at(rows, "load_cv", layer="1") == 0
    assert value_at(rows, "load_max_over_mean", layer="1") == 1
    assert value_at(rows, "dead_experts", layer="1") == 0
    assert value_at(rows, "hottest_share", layer="1") == 0.5


def test_overflow_counts_first_and_second_choices_apart() -> None:
    tokens = [(0, 1, False, True), (0, 1, True, True), (2, 3, False, False), (2, 0, False, True)]
    rows = [Row(0, expert, slot, sequence=number, dropped=lost)
            for number, (first, second, lost_first, lost_second) in enumerate(tokens)
            for slot, (expert, lost) in enumerate(((first, lost_first), (second, lost_second)))]  # fmt: skip
    found = routing_rows(trace_of(rows))
    assert value_at(found, "overflow_expert1", layer="1") == 25
    assert value_at(found, "overflow_expert2", layer="1") == 75
    assert value_at(found, "dropped_fraction", layer="1") == 0.5
    assert value_at(found, "dropped_tokens", layer="1") == 0.75


def test_a_top_1_router_has_no_second_overflow() -> None:
    assert "overflow_expert2" not in metrics_of(routing_rows(trace_of(steps_of([0, 1]))))


def test_over_layers_is_the_mean_but_dead_experts_add_up_and_the_hottest_is_the_worst() -> None:
    rows = routing_rows(trace_of([*steps_of([0, 1, 2, 3]), *steps_of([0, 0, 0, 1], layer="3")], layers=LAYERS))
    assert value_at(rows, "active_experts") == 3
    assert value_at(rows, "load_max_over_mean") == (1 + 3) / 2
    assert value_at(rows, "dead_experts") == 0 + 2
    assert value_at(rows, "hottest_share") == 0.75


def test_layers_of_different_length_count_the_most_steps() -> None:
    rows = routing_rows(trace_of([*steps_of([0], [1], [2]), *steps_of([0], layer="3")], layers=LAYERS))
    assert value_at(rows, "steps") == 3


def test_domains_stand_apart_and_together() -> None:
    rows = routing_rows(trace_of([*steps_of([0, 0]), *steps_of([1, 1], domain="code")]))
    for domain in ("prose", "code"):
        assert value_at(rows, "active_experts", layer="1", domain=domain) == 1
        assert value_at(rows, "active_experts", domain=domain) == 1
    assert value_at(rows, "active_experts", layer="1") == 2
    assert value_at(rows, "steps") == 1


def test_a_layer_where_a_domain_has_no_tokens_says_nothing_of_it() -> None:
    rows = routing_rows(trace_of([*steps_of([0, 0]), *steps_of([1], domain="code", layer="3")], layers=LAYERS))
    assert not [row for row in rows if (row.layer, row.domain) in {("1", "code"), ("3", "prose")}]
    assert value_at(rows, "active_experts", domain="code") == 1


def test_a_domain_without_a_name_is_the_whole() -> None:
    rows = routing_rows(trace_of([*steps_of([0, 0], domain=""), *steps_of([1, 2], domain="code")]))
    MetricTable().extend(rows)
    assert value_at(rows, "active_experts", layer="1") == 3


@pytest.mark.parametrize(("rows", "num_experts"), [([], 4), (steps_of([0]), 1), (steps_of([3]), 128)])
def test_no_rows_one_expert_and_a_single_token_are_no_trouble(rows: list[Row], num_experts: int) -> None:
    found = routing_rows(trace_of(rows, num_experts=num_experts))
    assert all(math.isfinite(row.value) for row in found)
    assert bool(found) == bool(rows)


def test_forced_routing_marks_what_depends_on_it() -> None:
    kinds = {row.metric: row.kind for row in routing_rows(trace_of(steps_of([0, 1]), forced=True))}
    assert kinds["active_experts"] == "forced"
    assert kinds["active_bound"] == "exact"


@given(drawn_rows())
def test_every_metric_is_the_one_found_row_by_row(rows: list[Row]) -> None:
    trace = trace_of(rows, num_experts=5, layers=LAYERS)
    found = routing_rows(trace)
    MetricTable().extend(found)
    for layer, domain in {(row.layer, row.domain) for row in rows} | {(row.layer, "") for row in rows}:
        mine = [row for row in rows if row.layer == layer and domain in {"", row.domain}]
        for metric, value in by_hand(mine, trace.header.top_k).items():
            assert value_at(found, metric, layer=layer, domain=domain) == pytest.approx(value), metric
    assert metrics_of(found) <= set(METRICS)


def by_hand(rows: list[Row], top_k: int) -> dict[str, float]:
    """The registry's formulas in plain loops, for 5 experts."""
    steps = sorted({row.step for row in rows})
    tokens = [{(r.sequence, r.position) for r in rows if r.step == step} for step in steps]
    loads = [Counter(row.expert for row in rows if row.step == step) for step in steps]
    totals = [sum(load[expert] for load in loads) for expert in range(5)]
    active = statistics.mean(len(load) for load in loads)
    num_tokens = sum(map(len, tokens))
    values = {
        "steps": len(steps),
        "step_tokens": num_tokens / len(steps),
        "dropped_fraction": sum(row.dropped for row in rows) / (top_k * num_tokens),
        "dropped_tokens": len({(r.step, r.sequence, r.position) for r in rows if r.dropped}) / num_tokens,
        "overflow_expert1": 100 * sum(row.dropped for row in rows if row.slot == 0) / num_tokens,
        "active_experts": active,
        "active_bound": statistics.mean(min(5, top_k * len(these)) for these in tokens),
        "inactive_fraction": 1 - active / 5,
        "dead_experts": totals.count(0),
        "load_max_over_mean": max(totals) / statistics.mean(totals),
        "load_cv": statistics.pstdev(totals) / statistics.mean(totals),
        "hottest_share": max(max(load.values()) / sum(load.values()) for load in loads),
    }
    if top_k >= 2:
        values["overflow_expert2"] = 100 * sum(row.dropped for row in rows if row.slot == 1) / num_tokens
    return values
