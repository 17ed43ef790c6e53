"""Whether a gain is told from chance, and what would change the verdict."""

import numpy as np
import pytest

from moeprof.analysis.placement.gain import FEWEST, Gain, draws, gain


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
