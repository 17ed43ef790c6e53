"""The rank test against every arrangement of small series, Holm against closed testing, intervals and rounds by simulation."""

import math
from itertools import combinations
from statistics import median

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from moeprof.analysis.significance import ALPHA, POWER, holm, p_value, ratio, ratio_interval, rounds_needed

APART = ([1.0, 2, 3, 4, 5], [6.0, 7, 8, 9, 10])

some_p_values = st.dictionaries(st.sampled_from("abcde"), st.floats(0, 1), min_size=1)
some_rounds = st.lists(st.integers(1000, 2000), min_size=2, max_size=12)


def wins(baseline: list[float], candidate: list[float]) -> int:
    """Pairs in which the candidate is larger: Mann and Whitney's U."""
    return sum(after > before for before in baseline for after in candidate)


def enumerated(baseline: list[float], candidate: list[float]) -> float:
    """Share of all arrangements of the values into two sides whose U lies at least as far from its mean."""
    values, middle = [*baseline, *candidate], len(baseline) * len(candidate) / 2
    seen = abs(wins(baseline, candidate) - middle)
    far = 0
    for chosen in combinations(range(len(values)), len(baseline)):
        side = [values[index] for index in chosen]
        other = [value for index, value in enumerate(values) if index not in chosen]
        far += abs(wins(side, other) - middle) >= seen
    return far / math.comb(len(values), len(baseline))


def closed_testing(p_values: dict[str, float]) -> dict[str, float]:
    """For every member the largest Bonferroni p value of a subset that holds it (Marcus, Peritz and Gabriel 1976)."""
    subsets = [set(some) for size in range(1, len(p_values) + 1) for some in combinations(p_values, size)]
    return {
        name: max(min(1.0, len(some) * min(p_values[one] for one in some)) for some in subsets if name in some)
        for name in p_values
    }


def drawn(generator: np.random.Generator, rounds: int, speed: float = 1, noise: float = 0.05) -> list[float]:
    return [speed * (1 + noise * float(draw)) for draw in generator.standard_normal(rounds)]


# The rank test


@given(st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_without_ties_it_counts_every_arrangement(ours: int, theirs: int, random: object) -> None:
    values = [float(value) ** 2 for value in range(1, ours + theirs + 1)]
    random.shuffle(values)  # type: ignore[attr-defined]
    assert p_value(values[:ours], values[ours:]) == pytest.approx(enumerated(values[:ours], values[ours:]), rel=1e-12)


@pytest.mark.parametrize("rounds", [6, 9, 10, 12, 20])
def test_rounds_without_overlap_have_two_arrangements_of_all(rounds: int) -> None:
    """Beyond 8 rounds too, where the normal approximation would say 60 times as much for 20 rounds."""
    low, high = [float(value) for value in range(1, rounds + 1)], [float(value) for value in range(100, 100 + rounds)]
    assert p_value(low, high) == pytest.approx(2 / math.comb(2 * rounds, rounds), rel=1e-9)


def test_with_ties_it_is_the_normal_approximation_with_tied_ranks() -> None:
    """By hand: n = m = 4, ranks 1, 2.5, 2.5, 5 and 5, 5, 7, 8, so U = 1; groups of 2 and 3; continuity 1/2."""
    baseline, candidate = [1.0, 2, 2, 3], [3.0, 3, 4, 5]
    deviation = math.sqrt(16 / 12 * (9 - (2**3 - 2 + 3**3 - 3) / (8 * 7)))
    expected = math.erfc((16 - 1 - 8 - 0.5) / deviation / math.sqrt(2))
    assert p_value(baseline, candidate) == pytest.approx(expected, rel=1e-9)
    assert p_value(baseline, candidate) == pytest.approx(stats.mannwhitneyu(baseline, candidate, method="asymptotic").pvalue)


def test_equal_rounds_differ_with_probability_one() -> None:
    assert p_value([5, 5, 5], [5, 5, 5]) == 1
    assert p_value([5], [6]) == 1


@given(some_rounds, some_rounds)
@settings(deadline=None)
def test_the_sides_may_be_exchanged_and_the_unit_changed(baseline: list[int], candidate: list[int]) -> None:
    assert p_value(candidate, baseline) == pytest.approx(p_value(baseline, candidate))
    assert p_value([7 * one for one in baseline], [7 * one for one in candidate]) == p_value(baseline, candidate)


# Holm's correction


@given(some_p_values)
def test_holm_is_closed_testing_with_bonferroni(p_values: dict[str, float]) -> None:
    assert holm(p_values) == pytest.approx(closed_testing(p_values))
    assert list(holm(p_values)) == list(p_values)


def test_holm_of_an_example() -> None:
    """4 x 0.01 = 0.04, 3 x 0.013 = 0.039 but not below the one before, 2 x 0.03 = 0.06, 0.04 but not below 0.06."""
    corrected = holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.013})
    assert corrected == pytest.approx({"d": 0.06, "a": 0.04, "c": 0.06, "b": 0.04})
    assert holm({}) == {}


# The ratio and its interval


def test_the_ratio_is_the_median_over_all_pairs_of_rounds() -> None:
    """2/1, 4/1, 9/1, 2/2, 4/2, 9/2, 2/4, 4/4, 9/4: in order 0.5, 1, 1, 2, 2, 2.25, 4, 4.5, 9."""
    assert ratio([1, 2, 4], [2, 4, 9]) == 2
    assert ratio([10, 20, 30], [10, 20, 30]) == 1


@given(some_rounds, some_rounds)
@settings(max_examples=25, deadline=None)
def test_the_interval_is_ordered_repeatable_and_the_same_in_any_unit_and_order(
    baseline: list[int], candidate: list[int]
) -> None:
    low, high = ratio_interval(baseline, candidate)
    assert min(candidate) / max(baseline) <= low <= high <= max(candidate) / min(baseline)
    assert ratio_interval(baseline, candidate) == (low, high)
    assert ratio_interval([3 * one for one in baseline], [6 * one for one in candidate]) == pytest.approx((2 * low, 2 * high))


@pytest.mark.parametrize("speed", [0.8, 1, 1.3])
def test_the_interval_holds_the_ratio_that_was_seen(speed: float) -> None:
    generator = np.random.default_rng(3)
    for rounds in (5, 10, 15, 30):
        baseline, candidate = drawn(generator, rounds), drawn(generator, rounds, speed)
        low, high = ratio_interval(baseline, candidate)
        assert low < median(candidate) / median(baseline) < high
        assert low < ratio(baseline, candidate) < high


def test_a_wider_confidence_gives_a_wider_interval_and_no_noise_gives_none() -> None:
    generator = np.random.default_rng(4)
    sides = drawn(generator, 12), drawn(generator, 12)
    (low, high), (lowest, highest) = ratio_interval(*sides, confidence=0.8), ratio_interval(*sides, confidence=0.99)
    assert lowest < low < high < highest
    assert ratio_interval([4.0] * 10, [5.0] * 10) == (1.25, 1.25)


@pytest.mark.parametrize("rounds", [10, 20])
def test_the_interval_covers_the_true_ratio_in_about_95_of_100_cases(rounds: int) -> None:
    """Percentiles of a median are a little cautious; 600 cases have a standard error of 0.9%."""
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(600):
        low, high = ratio_interval(drawn(generator, rounds), drawn(generator, rounds, 0.9))
        inside += low <= 0.9 <= high
    assert 0.93 <= inside / 600 <= 0.98


# The rounds it would need


def rounds_at(noise: float, threshold: float, family: int = 1) -> int:
    """For two sides whose standard deviation is exactly this share of their mean."""
    side = [1 - noise / math.sqrt(2), 1 + noise / math.sqrt(2)]
    return rounds_needed(side, side, threshold, family)


def test_more_noise_a_smaller_threshold_and_a_larger_family_need_more_rounds() -> None:
    noises, thresholds = [0.01, 0.02, 0.05, 0.1, 0.3], [0.3, 0.1, 0.05, 0.02, 0.01]
    assert sorted(by_noise := [rounds_at(noise, 0.05) for noise in noises]) == by_noise
    assert sorted(by_threshold := [rounds_at(0.05, threshold) for threshold in thresholds]) == by_threshold
    assert rounds_at(0.05, 0.05, 1) < rounds_at(0.05, 0.05, 4) < rounds_at(0.05, 0.05, 40)
    assert rounds_at(0.3, 0.01) > 10_000


def test_the_rounds_of_an_example() -> None:
    """2 (2.5758 + 1.2816)^2 x (0.05 / 0.05)^2 = 29.76 rounds for a t test, x pi / 3 = 31.2 for the rank test."""
    assert rounds_at(0.05, 0.05) == 32


@pytest.mark.parametrize("family", [1, 4, 100])
def test_fewer_rounds_than_can_ever_be_significant_are_never_promised(family: int) -> None:
    needed = rounds_at(1e-6, 0.05, family)
    assert 2 / math.comb(2 * needed, needed) < ALPHA / family <= 2 / math.comb(2 * needed - 2, needed - 1)
    assert rounds_needed([7.0], [8.0], 0.05, family) == needed
    assert rounds_needed([7.0] * 9, [8.0] * 9, 0.05, family) == needed


@pytest.mark.parametrize("family", [1, 4])
def test_with_the_rounds_it_names_a_change_of_that_size_is_found_as_often_as_it_says(family: int) -> None:
    """About so often: 400 cases have a standard error of 1.5%, and the test's normal approximation is a little short."""
    generator, threshold = np.random.default_rng(6), 0.08
    rounds = rounds_at(0.05, threshold, family)
    tested = [p_value(drawn(generator, rounds), drawn(generator, rounds, 1 + threshold, 0.05 / 1.08)) for _ in range(400)]
    found = sum(p < ALPHA / family for p in tested) / len(tested)
    assert POWER - 0.07 <= found <= POWER + 0.05


def test_sides_that_overlap_nowhere_are_found_at_five_rounds() -> None:
    assert p_value(*APART) == pytest.approx(2 / 252)
    assert p_value(*APART) < ALPHA
