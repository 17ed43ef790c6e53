"""The interval of a median against binomial order statistics in exact fractions."""

from fractions import Fraction
from math import comb
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.timing.intervals import median_interval

some_rounds = st.lists(st.integers(-(2**40), 2**40), min_size=6, max_size=60)


def outside(num_values: int, rank: int) -> Fraction:
    """Probability that the median lies below the value of that rank (from 1), or above its counterpart from the top."""
    below = sum(comb(num_values, count) for count in range(rank))
    return Fraction(2 * below, 2**num_values)


def rank_of(num_values: int) -> int:
    """The highest rank from either end that still leaves 95%; 0 where none does."""
    return max((rank for rank in range(1, num_values // 2 + 1) if outside(num_values, rank) <= Fraction(1, 20)), default=0)


@pytest.mark.parametrize("num_values", range(6, 80))
def test_it_reaches_from_the_order_statistic_that_leaves_95_percent_to_its_counterpart(num_values: int) -> None:
    rank = rank_of(num_values)
    assert 1 - outside(num_values, rank) >= Fraction(95, 100)
    values = [float((7 * place) % num_values) if num_values % 7 else float(place) for place in range(num_values)]
    ordered = sorted(values)
    assert median_interval(values) == (ordered[rank - 1], ordered[num_values - rank])


def test_ten_rounds_give_the_second_and_the_ninth() -> None:
    """P(at most one of ten below the median) = 11 / 1024 on either side: 97.9% inside."""
    assert outside(10, 2) == Fraction(22, 1024)
    assert median_interval([10, 20, 30, 40, 50, 60, 70, 80, 90, 100]) == (20, 90)


@pytest.mark.parametrize("num_values", [1, 2, 5])
def test_fewer_than_six_rounds_have_none(num_values: int) -> None:
    assert rank_of(num_values) == 0
    assert median_interval([float(value) for value in range(num_values)]) is None


def test_six_rounds_have_the_whole_range() -> None:
    assert median_interval([3, 1, 2, 6, 5, 4]) == (1, 6)


@given(some_rounds)
def test_the_median_lies_inside(values: list[int]) -> None:
    interval = median_interval(values)
    assert interval is not None
    assert interval[0] <= median(values) <= interval[1]


@given(some_rounds, st.integers(-(2**20), 2**20), st.integers(1, 2**10))
def test_it_moves_and_grows_with_the_values(values: list[int], shift: int, scale: int) -> None:
    interval = median_interval(values)
    assert interval is not None
    assert median_interval([scale * value + shift for value in values]) == (
        scale * interval[0] + shift,
        scale * interval[1] + shift,
    )


@given(some_rounds, st.randoms(use_true_random=False))
def test_the_order_of_the_rounds_does_not_matter(values: list[int], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert median_interval(shuffled) == median_interval(values)
