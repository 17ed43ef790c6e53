"""Distinct experts of groups of tokens, against sets of them."""

from collections.abc import Iterable
from itertools import chain, combinations
from statistics import fmean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.routing import distinct
from moeprof.analysis.routing.distinct import distinct_by_size, distinct_rows
from moeprof.analysis.routing.token_choices import phase_tokens
from tests.analysis.traces import Row, trace_of

Token = list[int]


def flat(tokens: Iterable[Token]) -> list[int]:
    """The choices of all tokens in order."""
    return list(chain.from_iterable(tokens))


def tokens_of(*domains: list[Token], layer: str = "1", top_k: int = 2) -> list[Row]:
    """A step per token, domain after domain."""
    steps = [(f"text{number}", token) for number, tokens in enumerate(domains) for token in tokens]
    return [
        Row(step, expert, slot, layer, domain)
        for step, (domain, token) in enumerate(steps)
        for slot, expert in enumerate(token)
    ]


def rows_of(rows: list[Row], experts: int = 6) -> dict[tuple[str, str, str], float]:
    """The distinct experts by metric, layer and point."""
    layers = tuple(dict.fromkeys(row.layer for row in rows))
    found = distinct_rows(phase_tokens([trace_of(rows, num_experts=experts, layers=layers)]))
    return {(row.metric, row.layer, row.point): row.value for row in found}


TOKEN = st.permutations(range(6)).map(lambda experts: list(experts[:2]))


@settings(deadline=None)
@given(st.lists(st.lists(TOKEN, min_size=1, max_size=9), min_size=1, max_size=3))
def test_groups_of_consecutive_tokens_of_a_domain_are_counted(domains: list[list[Token]]) -> None:
    found = rows_of(tokens_of(*domains))
    for size in (1, 2, 4, 8, 16):
        groups = [tokens[start : start + size] for tokens in domains for start in range(0, len(tokens) - size + 1, size)]
        at = ("distinct_experts", "1", f"tokens={size}")
        assert (at in found) == bool(groups)
        if groups:
            assert found[at] == pytest.approx(fmean(len(set(flat(group))) for group in groups))
            number = [len(tokens) // size for tokens in domains]
            shuffled = [
                fmean(len(set(flat(group))) for group in combinations(tokens, size)) if len(tokens) >= size else 0.0
                for tokens in domains
            ]
            expected = sum(n * value for n, value in zip(number, shuffled, strict=True)) / sum(number)
            assert found["distinct_experts_shuffled", "1", f"tokens={size}"] == pytest.approx(expected)


def test_over_layers_is_the_mean_of_the_layers_that_have_a_group() -> None:
    rows = tokens_of([[0, 1], [0, 1], [2, 3], [4, 5]]) + tokens_of([[0, 1], [2, 3]], layer="2")
    found = rows_of(rows)
    assert found["distinct_experts", "1", "tokens=2"] == (2 + 4) / 2
    assert found["distinct_experts", "2", "tokens=2"] == 4
    assert found["distinct_experts", "", "tokens=2"] == (3 + 4) / 2
    assert found["distinct_experts", "", "tokens=4"] == found["distinct_experts", "1", "tokens=4"] == 6
    assert found["distinct_experts_by_chance", "", "tokens=2"] == pytest.approx(6 * (1 - (4 / 6) ** 2))


def test_long_traces_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = phase_tokens([trace_of(tokens_of([[number % 6, (number + 1) % 6] for number in range(23)]), num_experts=6)])
    (layer,) = tokens.layers
    whole = distinct_by_size(layer.expert_TK, 6)
    monkeypatch.setattr(distinct, "MOST_TOKENS", 4)
    assert distinct_by_size(layer.expert_TK, 6) == {size: whole[size] for size in (1, 2, 4)}
