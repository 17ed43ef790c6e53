"""Whether a gain is told from chance, and what would change the verdict."""

import numpy as np
import pytest
from scipy.stats import norm, t

from moeprof.analysis.placement.gain import FEWEST, WORTH, Gain, draws, gain


def drawn_gain(factor: float, num_steps: int, spread: float, seed: int = 0) -> Gain:
    """Two layers; afterwards the busiest device carries `factor` of what it did, give or take."""
    generator = np.random.default_rng(seed)
    before = [0.5 * np.exp(generator.normal(0, 0.05, num_steps)) for _ in range(2)]
    after = [values * factor * np.exp(generator.normal(0, spread, num_steps)) for values in before]
    return gain([np.arange(num_steps)] * 2, before, after)


def test_the_gain_is_the_fall_of_the_mean_over_layers_of_means_over_steps() -> None:
    found = gain(
        [np.array([0, 1]), np.array([1])], [np.array([0.5, 0.7]), np.array([0.4])], [np.array([0.3, 0.3]), np.array([0.2])]
    )
    assert found.value == pytest.approx(1 - (0.3 + 0.2) / (0.6 + 0.4))
    assert found.steps == 2
    assert found.verdict == "too little evidence"


def test_a_clear_gain_is_recommended_and_no_gain_is_not() -> None:
    better, same = drawn_gain(0.6, 200, 0.1), drawn_gain(1.0, 200, 0.05)
    assert better.verdict == "recommended"
    assert better.low < 0.4 < better.high
    assert same.verdict == "not recommended"
    assert drawn_gain(1.5, 200, 0.05).verdict == "not recommended"


def test_a_gain_near_the_threshold_asks_for_more_steps_and_gets_its_answer_there() -> None:
    little = drawn_gain(0.92, 40, 0.3)
    assert little.verdict == "too little evidence"
    needed = Gain(0.08, -0.02, 0.18, 40).steps_needed
    assert needed == round(40 * (0.10 / 0.03) ** 2 + 0.5)
    assert Gain(0.05, -0.02, 0.12, 40).steps_needed is None
    assert drawn_gain(0.85, 20 * 40, 0.3).verdict == "recommended"


def test_few_steps_say_nothing_however_clear_they_are() -> None:
    assert drawn_gain(0.5, FEWEST - 1, 0.0).verdict == "too little evidence"
    assert drawn_gain(0.5, FEWEST, 0.0).verdict == "recommended"
    assert drawn_gain(0.5, FEWEST - 1, 0.0).steps_needed == FEWEST


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = [found.low <= 0.4 <= found.high for seed in range(60) if (found := drawn_gain(0.6 / np.exp(0.02), 80, 0.2, seed))]
    assert 0.85 <= np.mean(covered) <= 1
    few = [
        found.low <= 0.4 <= found.high for seed in range(100) if (found := drawn_gain(0.6 / np.exp(0.02), FEWEST, 0.2, seed))
    ]
    assert 0.9 <= np.mean(few) <= 1


def test_the_interval_is_that_of_resamples_stretched_for_few_blocks_and_for_all_that_are_compared() -> None:
    """27 steps are 9 blocks of 3; a plain loop over the resamples."""
    generator = np.random.default_rng(2)
    before_B, after_B = generator.uniform(0.4, 0.6, 27), generator.uniform(0.2, 0.5, 27)
    drawn = [1 - (times_B @ after_B) / (times_B @ before_B) for times_B in draws(27, 0)]
    value = 1 - after_B.mean() / before_B.mean()
    for compared in (1, 8):
        found = gain([np.arange(27)], [before_B], [after_B], compared=compared)
        ends = np.percentile(drawn, [2.5 / compared, 100 - 2.5 / compared])
        inside = 1 - 0.025 / compared
        stretched = value + (ends - value) * (9 / 8) ** 0.5 * t.ppf(inside, 8) / norm.ppf(inside)
        assert [found.value, found.low, found.high] == pytest.approx([value, *stretched])


@pytest.mark.parametrize("num_steps", [FEWEST, 40])
def test_of_nine_placements_on_the_threshold_the_best_is_recommended_as_seldom_as_one_may_be(num_steps: int) -> None:
    """All gain WORTH in the long run, so that every recommendation is chance; what they share is half of their variance."""
    corrected, alone = [], []
    for seed in range(200):
        before_B, common_B, *noise_9B = np.random.default_rng(seed).normal(0, 0.2, (11, num_steps))
        after_9B = (1 - WORTH) * np.exp((common_B + np.array(noise_9B)) / 2**0.5)
        best = after_9B[after_9B.mean(axis=1).argmin()]
        for found, compared in ((corrected, 9), (alone, 1)):
            found.append(gain([np.arange(num_steps)], [np.exp(before_B)], [best], compared=compared).verdict == "recommended")
    assert np.mean(corrected) <= 0.025
    assert np.mean(alone) > 0.06


def test_steps_that_resemble_each_other_make_the_interval_wider() -> None:
    generator = np.random.default_rng(1)
    noise = np.repeat(generator.normal(0, 0.3, 20), 10)
    steps, before = [np.arange(200)], [np.full(200, 0.5)]
    alike = gain(steps, before, [0.4 * np.exp(noise)])
    mixed = gain(steps, before, [0.4 * np.exp(generator.permutation(noise))])
    assert alike.value == pytest.approx(mixed.value)
    assert alike.high - alike.low > 1.5 * (mixed.high - mixed.low)


def test_every_draw_has_as_many_steps_as_there_are() -> None:
    assert set(draws(27, 0).sum(axis=1)) == {27}
    assert draws(27, 0).mean() == pytest.approx(1)
    assert (draws(27, 0) == draws(27, 0)).all()
    assert draws(1, 0).tolist() == [[1.0]] * 1000
