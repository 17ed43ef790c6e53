"""Drift between domains agrees with scipy and with sets, on hand-made loads and on those of real models."""

import json
import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from moeprof.analysis.routing.drift import (
    HALVES,
    category_of,
    divergence_bits,
    drift_metrics,
    drift_rows,
    hot_experts,
    hot_jaccard,
)
from moeprof.analysis.routing.metrics import balance_metrics
from moeprof.records.metrics.registry import MetricTable
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of, value_at

LOADS = st.lists(st.integers(0, 1000), min_size=6, max_size=6).filter(any)


def test_the_hot_experts_are_the_top_quarter_and_ties_go_to_the_lowest_id() -> None:
    assert hot_experts(np.array([5, 9, 5, 5, 0, 1, 1, 1])) == {1, 0}
    assert hot_experts(np.array([1, 1, 1, 1, 1])) == {0, 1}
    assert hot_experts(np.array([7])) == {0}


def test_an_unused_expert_is_never_hot() -> None:
    assert hot_experts(np.array([0, 0, 0, 0, 0, 0, 0, 3])) == {7}


def test_the_same_shares_do_not_diverge_and_disjoint_ones_by_one_bit() -> None:
    assert divergence_bits(np.array([1, 2, 3]), np.array([10, 20, 30])) == pytest.approx(0, abs=1e-15)
    assert divergence_bits(np.array([1, 1, 0, 0]), np.array([0, 0, 5, 1])) == 1


def test_a_domain_without_choices_has_no_drift() -> None:
    assert drift_metrics(np.array([0, 0]), np.array([1, 2])) == {}


@given(LOADS, LOADS)
def test_divergence_is_the_square_of_scipys_distance(one: list[int], other: list[int]) -> None:
    found = divergence_bits(np.array(one), np.array(other))
    assert found == pytest.approx(float(jensenshannon(one, other, base=2)) ** 2, abs=1e-7)
    assert found == pytest.approx(divergence_bits(np.array(other), np.array(one)))
    assert 0 <= found <= 1


def test_every_two_domains_are_a_pair_and_their_mean_stands_beside_them() -> None:
    rows = drift_rows(trace_of([*steps_of([0, 0, 1]), *steps_of([0, 0, 1], domain="code"), *steps_of([2], domain="law")]))
    MetricTable().extend(rows)
    assert value_at(rows, "hot_jaccard", layer="1", category="prose vs code") == 1
    assert value_at(rows, "hot_jaccard", layer="1", category="prose vs law") == 0
    assert value_at(rows, "load_divergence", layer="1", category="code vs law") == 1
    assert value_at(rows, "load_divergence", layer="1") == pytest.approx(2 / 3)
    assert value_at(rows, "load_divergence") == pytest.approx(2 / 3)
    assert value_at(rows, "load_divergence", category="prose vs law") == 1


def test_every_pair_of_domains_has_a_category_of_its_own() -> None:
    names = ["a", "b", "a vs b", "b vs a", "a vs", "vs b", "vs", "history", "test", '"a"', '"a" vs "b"']
    pairs = [(one, other) for one in names for other in names]
    assert len({category_of(pair) for pair in pairs} | {HALVES, category_of(None)}) == len(pairs) + 2
    assert category_of(("prose", "code")) == "prose vs code"
    assert category_of(("history", "test")) == '"history" vs "test"'


def test_domains_whose_names_join_to_the_same_text_have_their_own_drift() -> None:
    names = {"a": [0, 0], "b vs c": [0, 1], "a vs b": [1, 1], "c": [1, 2]}
    rows = drift_rows(trace_of([row for name, experts in names.items() for row in steps_of(experts, domain=name)]))
    MetricTable().extend(rows)
    assert value_at(rows, "load_divergence", category='"a" vs "a vs b"') == 1
    assert value_at(rows, "hot_jaccard", category='"a" vs "b vs c"') == 1
    assert value_at(rows, "hot_jaccard", category='"a vs b" vs "c"') == 1


def test_one_domain_has_no_drift() -> None:
    assert drift_rows(trace_of(steps_of([0, 1], [2]))) == []


@given(drawn_rows())
def test_drift_has_a_row_for_every_pair_of_domains_that_a_layer_saw(rows: list[Row]) -> None:
    found = drift_rows(trace_of(rows, num_experts=5, layers=("1", "3")))
    MetricTable().extend(found)
    for layer in ("1", "3"):
        domains = {row.domain for row in rows if row.layer == layer}
        pairs = {row.category for row in found if row.layer == layer} - {""}
        assert {frozenset(pair.split(" vs ")) for pair in pairs} == {frozenset(two) for two in combinations(domains, 2)}
    assert all(math.isfinite(row.value) for row in found)


@pytest.mark.parametrize(
    ("name", "row_sum", "num_experts"),
    [("mixtral_8x7b_counts.json", 417_792, 8), ("olmoe_counts_public.json", 1_671_168, 64)],
)
def test_loads_of_real_models_have_the_stated_sums_balance_and_drift(
    shared_data: Path, name: str, row_sum: int, num_experts: int
) -> None:
    counts = json.loads((shared_data / "loads" / name).read_text())["counts"]
    for layers in counts.values():
        for row in layers:
            assert (sum(row), len(row)) == (row_sum, num_experts)
            balance = balance_metrics(np.array(row))
            assert balance["load_max_over_mean"] == pytest.approx(max(row) / (row_sum / num_experts))
            assert balance["load_cv"] == pytest.approx(np.std(row) / np.mean(row))
    for one, other in combinations(counts, 2):
        for a, b in zip(counts[one], counts[other], strict=True):
            drift = drift_metrics(np.array(a), np.array(b))
            assert drift["load_divergence"] == pytest.approx(float(jensenshannon(a, b, base=2)) ** 2)
            hot_a, hot_b = ({id_ for _, id_ in sorted((-n, i) for i, n in enumerate(x))[: num_experts // 4]} for x in (a, b))
            assert drift["hot_jaccard"] == len(hot_a & hot_b) / len(hot_a | hot_b) == hot_jaccard(np.array(a), np.array(b))


def test_github_and_c4_heat_different_experts_of_olmoes_last_layer(shared_data: Path) -> None:
    counts = json.loads((shared_data / "loads" / "olmoe_counts_public.json").read_text())["counts"]
    one, other = (np.array(layers[-1]) for layers in counts.values())
    assert drift_metrics(one, other)["hot_jaccard"] < 0.5
