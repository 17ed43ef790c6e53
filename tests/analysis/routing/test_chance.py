"""Values by chance against enumeration of all orders and all sets."""

from fractions import Fraction
from itertools import combinations, pairwise, permutations, product
from math import comb, log
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.routing.chance import (
    entropy,
    expected_distinct,
    expected_shuffled,
    jaccard_by_chance,
    log_falling,
    overlap_shuffled,
    reuse_distance_by_chance,
)
from moeprof.analysis.routing.load_matrix import load_matrices
from tests.analysis.traces import steps_of, trace_of


@settings(deadline=None)
@given(st.integers(1, 6).flatmap(lambda experts: st.tuples(st.just(experts), st.integers(1, experts), st.integers(1, experts))))
def test_the_jaccard_index_by_chance_is_that_of_all_pairs_of_sets(sizes: tuple[int, int, int]) -> None:
    experts, one, other = sizes
    fixed = set(range(one))
    pairs = [len(fixed & set(drawn)) / len(fixed | set(drawn)) for drawn in combinations(range(experts), other)]
    assert jaccard_by_chance(np.array([one, other]), experts) == pytest.approx(fmean(pairs))


def test_the_jaccard_index_by_chance_is_the_mean_over_transitions() -> None:
    alone = [jaccard_by_chance(np.array(pair), 7) for pair in ((2, 5), (5, 3), (3, 3))]
    assert jaccard_by_chance(np.array([2, 5, 3, 3]), 7) == pytest.approx(fmean(alone))


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=2, max_size=4))
def test_the_shuffled_overlap_is_the_mean_over_all_orders_of_the_steps(steps: list[set[int]]) -> None:
    (matrix,) = load_matrices(trace_of(steps_of(*(sorted(step) for step in steps)), num_experts=5))
    overlaps = [fmean(len(before & after) / len(after) for before, after in pairwise(order)) for order in permutations(steps)]
    assert overlap_shuffled(matrix) == pytest.approx(fmean(overlaps))


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 5), min_size=2, max_size=2), min_size=1, max_size=6), st.integers(1, 6))
def test_shuffled_tokens_reach_the_mean_of_all_groups(tokens: list[set[int]], drawn: int) -> None:
    drawn = min(drawn, len(tokens))
    counts = np.bincount([expert for token in tokens for expert in token], minlength=6)
    groups = [len(set().union(*group)) for group in combinations(tokens, drawn)]
    assert expected_shuffled(counts, len(tokens), drawn) == pytest.approx(fmean(groups))


@pytest.mark.parametrize("start", [10**7 - 1, 10**7, 10**7 + 1, 2**40])
@pytest.mark.parametrize("factors", [1, 2, 7, 4096])
def test_products_of_large_numbers_keep_their_digits(start: int, factors: int) -> None:
    whole = 1
    for factor in range(start, start - factors, -1):
        whole *= factor
    assert float(log_falling(np.array([float(start)]), factors)[0]) == pytest.approx(log(whole), abs=1e-6)


def test_shuffled_tokens_of_a_huge_table_are_those_of_independent_tokens() -> None:
    counts = np.array([2**50, 2**49, 2**49, 0])
    reached = [1 - (1 - share) ** 16 for share in (1.0, 0.5, 0.5, 0.0)]
    assert expected_shuffled(counts, 2**50, 16) == pytest.approx(sum(reached), rel=1e-9)


@pytest.mark.parametrize(("experts", "top_k", "tokens"), [(4, 1, 3), (4, 2, 2), (3, 3, 2), (5, 2, 3)])
def test_distinct_experts_by_chance_are_the_mean_of_all_choices(experts: int, top_k: int, tokens: int) -> None:
    choices = list(combinations(range(experts), top_k))
    reached = [len(set().union(*drawn)) for drawn in product(choices, repeat=tokens)]
    assert float(expected_distinct(experts, top_k, np.array(tokens))) == pytest.approx(fmean(reached))


def plain_reuse(shares: list[Fraction]) -> int | None:
    """The lower median of the expected number of returns after each distance."""
    returns: dict[int, Fraction] = {}
    for first in range(len(shares)):
        absent = Fraction(1)
        for second in range(first + 1, len(shares)):
            returns[second - first] = returns.get(second - first, Fraction(0)) + shares[first] * absent * shares[second]
            absent *= 1 - shares[second]
    total, found = sum(returns.values(), Fraction(0)), Fraction(0)
    for distance in sorted(returns):
        found += returns[distance]
        if total and 2 * found >= total:
            return distance
    return None


@settings(deadline=None)
@given(st.lists(st.integers(1, 8), max_size=8))
def test_the_reuse_distance_by_chance_is_the_median_of_all_expected_returns(eighths: list[int]) -> None:
    expected = plain_reuse([Fraction(share, 8) for share in eighths])
    assert reuse_distance_by_chance(np.array(eighths) / 8) == expected


def test_steps_that_use_one_expert_in_twenty_reuse_it_after_fourteen() -> None:
    """A geometric distribution: 1 - 0.95^13 = 0.487, 1 - 0.95^14 = 0.512."""
    assert reuse_distance_by_chance(np.full(5000, 0.05)) == 14


def test_even_loads_have_the_entropy_of_their_number_and_one_expert_has_none() -> None:
    assert entropy(np.array([7, 7, 7, 7])) == pytest.approx(log(4))
    assert entropy(np.array([0, 3, 0])) == 0
    assert entropy(np.array([1, 3])) == pytest.approx(log(4) - 0.75 * log(3))


def test_a_hypergeometric_mean_of_large_sets_is_exact() -> None:
    """Two sets of 60 of 128 experts; the sum over the intersections, in whole numbers."""
    total = sum(Fraction(comb(60, common) * comb(68, 60 - common) * common, 120 - common) for common in range(61))
    assert jaccard_by_chance(np.array([60, 60]), 128) == pytest.approx(float(total / comb(128, 60)), rel=1e-9)
