"""Ranks against every arrangement of small series, processes against scipy, Holm against closed testing, the rest by simulation."""

import math
from itertools import combinations
from statistics import median

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from moeprof.analysis.comparison.significance import (
    ALPHA,
    POWER,
    ProcessRounds,
    fewest_rounds,
    holm,
    p_value,
    processes_needed,
    ratio,
    ratio_interval,
    rounds_p,
    spread,
)

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


def flat(side: ProcessRounds) -> list[float]:
    return [value for rounds in side for value in rounds]


def drawn(generator: np.random.Generator, rounds: int, speed: float = 1, noise: float = 0.05) -> list[float]:
    return [speed * (1 + noise * float(draw)) for draw in generator.standard_normal(rounds)]


# The rank test


@given(st.integers(1, 5), st.integers(1, 5), st.randoms(use_true_random=False))
@settings(max_examples=40, deadline=None)
def test_without_ties_it_counts_every_arrangement(ours: int, theirs: int, random: object) -> None:
    values = [float(value) ** 2 for value in range(1, ours + theirs + 1)]
    random.shuffle(values)  # type: ignore[attr-defined]
    assert rounds_p(values[:ours], values[ours:]) == pytest.approx(enumerated(values[:ours], values[ours:]), rel=1e-12)


@pytest.mark.parametrize("rounds", [6, 9, 10, 12, 20])
def test_rounds_without_overlap_have_two_arrangements_of_all(rounds: int) -> None:
    """Beyond 8 rounds too, where the normal approximation would say 60 times as much for 20 rounds."""
    low, high = [float(value) for value in range(1, rounds + 1)], [float(value) for value in range(100, 100 + rounds)]
    assert rounds_p(low, high) == pytest.approx(2 / math.comb(2 * rounds, rounds), rel=1e-9)


def test_with_ties_it_is_the_normal_approximation_with_tied_ranks() -> None:
    """By hand: n = m = 4, ranks 1, 2.5, 2.5, 5 and 5, 5, 7, 8, so U = 1; groups of 2 and 3; continuity 1/2."""
    baseline, candidate = [1.0, 2, 2, 3], [3.0, 3, 4, 5]
    deviation = math.sqrt(16 / 12 * (9 - (2**3 - 2 + 3**3 - 3) / (8 * 7)))
    expected = math.erfc((16 - 1 - 8 - 0.5) / deviation / math.sqrt(2))
    assert rounds_p(baseline, candidate) == pytest.approx(expected, rel=1e-9)
    assert rounds_p(baseline, candidate) == pytest.approx(stats.mannwhitneyu(baseline, candidate, method="asymptotic").pvalue)


def test_equal_rounds_differ_with_probability_one() -> None:
    assert rounds_p([5, 5, 5], [5, 5, 5]) == 1
    assert rounds_p([5], [6]) == 1


@given(some_rounds, some_rounds)
@settings(deadline=None)
def test_the_sides_may_be_exchanged_and_the_unit_changed(baseline: list[int], candidate: list[int]) -> None:
    assert rounds_p(candidate, baseline) == pytest.approx(rounds_p(baseline, candidate))
    assert rounds_p([7 * one for one in baseline], [7 * one for one in candidate]) == rounds_p(baseline, candidate)


# The test over processes


some_processes = st.lists(st.lists(st.integers(1000, 2000), min_size=2, max_size=4), min_size=3, max_size=5)


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(some_processes, some_processes)
@settings(max_examples=50, deadline=None)
def test_the_larger_of_both_tests_counts(baseline: ProcessRounds, candidate: ProcessRounds) -> None:
    before, after = ([median(map(math.log, rounds)) for rounds in side] for side in (baseline, candidate))
    of_rounds = rounds_p(flat(baseline), flat(candidate))
    assume(max(np.std(before), np.std(after)) > 1e-9)
    welch = stats.ttest_ind(before, after, equal_var=False).pvalue
    assert p_value(baseline, candidate) == pytest.approx(max(of_rounds, welch), rel=1e-6)


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(some_processes, st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_in_pairs_the_ratio_of_rounds_beside_each_other_is_tested(baseline: list[list[int]], random: object) -> None:
    candidate = [[one + random.randint(1, 500) for one in rounds] for rounds in baseline]  # type: ignore[attr-defined]
    pairs = [
        median(math.log(late / early) for early, late in zip(*rounds, strict=True))
        for rounds in zip(baseline, candidate, strict=True)
    ]
    of_rounds = rounds_p(flat(baseline), flat(candidate))
    assert p_value(baseline, candidate, paired=True) == pytest.approx(
        max(of_rounds, stats.ttest_1samp(pairs, 0).pvalue), rel=1e-6
    )
    assert ratio(baseline, candidate, paired=True) == pytest.approx(math.exp(np.mean(pairs)))


def test_of_two_processes_the_rounds_alone_are_tested() -> None:
    baseline, candidate = [[1.0, 2, 3], [4.0, 5, 6]], [[7.0, 8, 9], [10.0, 11, 12]]
    assert p_value(baseline, candidate) == rounds_p(flat(baseline), flat(candidate))


def test_processes_that_do_not_vary_are_either_alike_or_apart() -> None:
    assert p_value([[5.0]] * 4, [[5.0]] * 4) == 1
    assert p_value([[5.0, 5.1]] * 4, [[6.0, 6.1]] * 4) == rounds_p([5, 5.1] * 4, [6, 6.1] * 4)


@pytest.mark.parametrize("paired", [False, True])
def test_processes_that_vary_seldom_make_two_equal_sides_differ(paired: bool) -> None:
    """5% from process to process and little within: rounds alone would cry wolf; 400 cases of which 1% may."""
    generator = np.random.default_rng(7)
    sides = [
        [[[pace * one for one in drawn(generator, 10, noise=0.01)] for pace in drawn(generator, 4)] for _ in "ab"]
        for _ in range(400)
    ]
    found = sum(p_value(*pair, paired=paired) < ALPHA for pair in sides)
    alone = sum(rounds_p(flat(before), flat(after)) < ALPHA for before, after in sides)
    assert found <= 12
    assert alone > 100


def test_the_spread_is_that_of_the_processes_medians() -> None:
    assert spread([[1, 2, 9], [2 * math.e]]) == pytest.approx(math.sqrt(0.5))
    assert spread([[1, 2, 9]]) is None


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


def test_the_ratio_is_of_medians_over_rounds_and_geometric_means_over_processes() -> None:
    """Medians 2 and 8 mean 4; 6 and 6 mean 6."""
    assert ratio([[1, 2, 4], [8]], [[2, 6, 9], [6, 6]]) == pytest.approx(6 / 4)
    assert ratio([[10, 20, 30]], [[10, 20, 30]]) == pytest.approx(1)


@given(some_rounds, some_rounds)
@settings(max_examples=25, deadline=None)
def test_the_interval_is_ordered_repeatable_and_the_same_in_any_unit(baseline: list[int], candidate: list[int]) -> None:
    low, high = ratio_interval([baseline], [candidate])
    rounding = 1e-9
    assert min(candidate) / max(baseline) - rounding <= low <= high <= max(candidate) / min(baseline) + rounding
    assert ratio_interval([baseline], [candidate]) == (low, high)
    assert ratio_interval([[3 * one for one in baseline]], [[6 * one for one in candidate]]) == pytest.approx(
        (2 * low, 2 * high)
    )


@pytest.mark.parametrize("speed", [0.8, 1, 1.3])
def test_the_interval_holds_the_ratio_that_was_seen(speed: float) -> None:
    generator = np.random.default_rng(3)
    for processes in (1, 3, 8):
        baseline, candidate = ([drawn(generator, 10, pace) for _ in range(processes)] for pace in (1, speed))
        low, high = ratio_interval(baseline, candidate)
        assert low < ratio(baseline, candidate) < high


def test_a_wider_confidence_gives_a_wider_interval_and_no_noise_gives_none() -> None:
    generator = np.random.default_rng(4)
    sides = [drawn(generator, 12)], [drawn(generator, 12)]
    (low, high), (lowest, highest) = ratio_interval(*sides, confidence=0.8), ratio_interval(*sides, confidence=0.99)
    assert lowest < low < high < highest
    assert ratio_interval([[4.0] * 10], [[5.0] * 10]) == pytest.approx((1.25, 1.25))


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_covers_the_true_ratio_in_about_95_of_100_cases(paired: bool) -> None:
    """Percentiles over ten processes are a little too narrow; 600 cases have a standard error of 0.9%."""
    generator = np.random.default_rng(5)
    inside = 0
    for _ in range(600):
        sides = [[drawn(generator, 3, speed * pace) for pace in drawn(generator, 10)] for speed in (1, 0.9)]
        low, high = ratio_interval(sides[0], sides[1], paired=paired)
        inside += low <= 0.9 <= high
    assert 0.89 <= inside / 600 <= 0.98


# The rounds it would need


def needed_at(noise: float, threshold: float, family: int = 1) -> int:
    """For two sides whose processes' logs have exactly this standard deviation."""
    side = [[math.exp(sign * noise / math.sqrt(2))] for sign in (-1, 1)]
    return processes_needed(side, side, threshold, family)


def test_more_noise_a_smaller_threshold_and_a_larger_family_need_more_processes() -> None:
    noises, thresholds = [0.01, 0.02, 0.05, 0.1, 0.3], [0.3, 0.1, 0.05, 0.02, 0.01]
    assert sorted(by_noise := [needed_at(noise, 0.05) for noise in noises]) == by_noise
    assert sorted(by_threshold := [needed_at(0.05, threshold) for threshold in thresholds]) == by_threshold
    assert needed_at(0.05, 0.05, 1) < needed_at(0.05, 0.05, 4) < needed_at(0.05, 0.05, 40)
    assert needed_at(0.3, 0.01) > 10_000


def test_the_processes_of_an_example() -> None:
    """2 (2.5758 + 1.2816)^2 = 29.76 where the noise is the log of the threshold; rounded up, and one more."""
    assert needed_at(math.log(1.05), 0.05) == 31


@pytest.mark.parametrize("family", [1, 4, 100])
def test_fewer_rounds_than_can_ever_be_significant_are_never_promised(family: int) -> None:
    fewest = fewest_rounds(family)
    assert 2 / math.comb(2 * fewest, fewest) < ALPHA / family <= 2 / math.comb(2 * fewest - 2, fewest - 1)
    assert needed_at(1e-6, 0.05, family) == fewest
    assert processes_needed([[7.0, 7, 7]] * 3, [[8.0, 8, 8]] * 3, 0.05, family) == max(3, math.ceil(fewest / 3))


@pytest.mark.parametrize("family", [1, 4])
def test_with_the_processes_it_names_a_change_of_that_size_is_found_as_often_as_it_says(family: int) -> None:
    """About so often: 400 cases have a standard error of 1.5%, and normal quantiles are a little short of Student's."""
    generator, threshold = np.random.default_rng(6), 0.08
    processes = needed_at(0.05, threshold, family)
    tested = [
        p_value([[one] for one in drawn(generator, processes)], [[one] for one in drawn(generator, processes, 1 + threshold)])
        for _ in range(400)
    ]
    found = sum(p < ALPHA / family for p in tested) / len(tested)
    assert POWER - 0.12 <= found <= POWER + 0.05


def test_sides_that_overlap_nowhere_are_found_at_five_rounds() -> None:
    assert rounds_p(*APART) == pytest.approx(2 / 252)
    assert rounds_p(*APART) < ALPHA
