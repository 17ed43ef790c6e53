"""The hot set of the first half of the tokens on the second half, against plain loops; and answers for traces with a known one."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.routing.hot_set import HotSet, elsewhere_rows, hot_set_rows, main_size, set_sizes, size_for
from moeprof.analysis.routing.load_matrix import layer_matrices
from moeprof.analysis.routing.token_choices import phase_tokens
from moeprof.records.metrics.registry import MetricRow
from tests.analysis.routing.test_distinct import TOKEN, Token, flat, tokens_of
from tests.analysis.traces import Row, trace_of


def rows_of(rows: list[Row], experts: int = 6) -> list[MetricRow]:
    """The rows of one phase."""
    layers = tuple(dict.fromkeys(row.layer for row in rows))
    return list(hot_set_rows(phase_tokens([trace_of(rows, num_experts=experts, layers=layers)])))


def at(found: list[MetricRow], metric: str, layer: str = "", point: str = "") -> float:
    """The one number at an address."""
    (value,) = [row.value for row in found if (row.metric, row.layer, row.point) == (metric, layer, point)]
    return value


def hottest(tokens: list[Token], size: int) -> list[int]:
    """The most frequent experts; `Counter` keeps the order of first use among equals."""
    return [expert for expert, _ in Counter(flat(tokens)).most_common(size)]


@settings(deadline=None)
@given(st.lists(st.lists(TOKEN, min_size=2, max_size=8), min_size=1, max_size=3))
def test_the_share_is_that_of_the_second_half_at_the_hottest_of_the_first(domains: list[list[Token]]) -> None:
    found = rows_of(tokens_of(*domains))
    earlier = [token for tokens in domains for token in tokens[: len(tokens) // 2]]
    later = flat(token for tokens in domains for token in tokens[len(tokens) // 2 :])
    used = len(set(flat(earlier)))
    for size in set_sizes(6, 2):
        if size <= used:  # beyond it, experts that the first half does not use come in the order of their ids
            hot = hottest(earlier, size)
            share = sum(expert in hot for expert in later) / len(later)
            assert at(found, "hot_set_share", "1", f"experts={size}") == pytest.approx(share)
            assert at(found, "hot_set_by_chance", "1", f"experts={size}") == size / 6
            low, high = (at(found, f"hot_set_share_{end}", "1", f"experts={size}") for end in ("low", "high"))
            assert 0 <= low <= high <= 1
    assert at(found, "hot_set_tokens") == len(later) / 2


def test_a_single_token_has_no_second_half() -> None:
    assert rows_of(tokens_of([[0, 1]])) == []
    assert rows_of(tokens_of([[0, 1]], [[2, 3]])) == []


def test_a_layer_that_only_later_tokens_reach_has_no_rows() -> None:
    rows = tokens_of([[0, 1]] * 4)
    found = rows_of(rows + [row._replace(layer="2") for row in rows if row.step == 3])
    assert {row.layer for row in found} == {"", "1"}


def test_fewest_experts_for_a_share_are_compared_in_whole_numbers() -> None:
    assert [size_for(np.array([5, 3, 1, 1]), percent) for percent in (50, 51, 80, 81, 100)] == [1, 2, 2, 3, 4]
    assert size_for(np.array([0, 0, 1]), 50) == 3


@pytest.mark.parametrize(("experts", "top_k", "size"), [(128, 6, 32), (8, 2, 2), (6, 1, 2), (8, 4, 4), (2, 2, 2)])
def test_the_set_is_a_quarter_of_the_experts_or_those_of_a_token(experts: int, top_k: int, size: int) -> None:
    assert main_size(experts, top_k) == size
    assert all(0 < one < experts for one in set_sizes(experts, top_k))


def drawn(weights: list[float], tokens: int, seed: int) -> list[Row]:
    """Top-1 tokens that choose their experts with these weights."""
    chosen = np.random.default_rng(seed).choice(len(weights), tokens, p=np.array(weights) / sum(weights))
    return tokens_of([[int(expert)] for expert in chosen])


def interval_of(weights: list[float], seed: int, tokens: int = 200) -> tuple[float, float]:
    """The interval of a quarter of eight experts."""
    found = rows_of(drawn(weights, tokens, seed), len(weights))
    low, high = (at(found, f"hot_set_share_{end}", "", "experts=2") for end in ("low", "high"))
    return low, high


def test_the_interval_includes_the_true_share_about_as_often_as_it_says() -> None:
    """With these weights the first half practically always finds the two hot experts, whose true share is 0.8."""
    intervals = [interval_of([20, 20, 2, 2, 2, 2, 1, 1], seed) for seed in range(60)]
    inside = sum(low <= 0.8 <= high for low, high in intervals)
    assert 50 <= inside <= 60


def test_even_loads_have_no_hot_set_and_skewed_ones_have() -> None:
    even, skewed = (interval_of(weights, 1, 2000) for weights in ([1.0] * 8, [20, 20, 2, 2, 2, 2, 1, 1]))
    assert HotSet(2, 0.25, *even, 0.25, 1000).answer == "no"
    assert HotSet(2, 0.8, *skewed, 0.25, 1000).answer == "yes"


@pytest.mark.parametrize(
    ("low", "high", "tokens", "answer"),
    [
        (0.51, 0.6, 10, "yes"),
        (0.5, 0.6, 10, "too little evidence"),
        (0.4, 0.5, 10, "too little evidence"),
        (0.2, 0.49, 10, "no"),
        (0.9, 0.9, 9, "too little evidence"),
    ],
)
def test_the_answer_needs_the_whole_interval_on_one_side_and_ten_tokens(
    low: float, high: float, tokens: int, answer: str
) -> None:
    assert HotSet(8, (low + high) / 2, low, high, 0.25, tokens).answer == answer


def test_the_hot_set_of_one_domain_is_judged_by_another() -> None:
    trace = trace_of(tokens_of([[0], [0], [1]], [[1], [1], [2], [2]]), num_experts=4)
    found = {
        (row.category, row.domain, row.layer): row.value for row in elsewhere_rows(trace.header, list(layer_matrices(trace)))
    }
    assert found["text0", "text1", "1"] == found["text0", "text1", ""] == 0
    assert found["text1", "text0", "1"] == 1 / 3
    assert len(found) == 4
