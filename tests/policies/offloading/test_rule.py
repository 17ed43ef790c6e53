"""The load rule decides as HOBBIT's text says, for weights in any order, and refuses thresholds that make no sense."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moeprof.policies.offloading.rule import HIGH, LOW, SKIP, LoadRule, expert_unimportance, unimportance
from moeprof.records.arrays import Floats
from moeprof.records.errors import UsageError

weights_of_tokens = arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.floats(0, 1, width=32))


def by_loops(weights_TK: Floats) -> list[list[float]]:
    """The definition: the sum of the normalised weights of the choices that are ranked better."""
    rows = []
    for weights in weights_TK.tolist():
        total = math.fsum(weights) or 1.0
        rows.append(
            [
                math.fsum(other for place, other in enumerate(weights) if other > own or (other == own and place < position))
                / total
                for position, own in enumerate(weights)
            ]
        )
    return rows


@given(weights_of_tokens)
def test_unimportance_is_the_weight_of_the_better_choices(weights_TK: Floats) -> None:
    np.testing.assert_allclose(unimportance(weights_TK), by_loops(weights_TK), rtol=1e-12)


@given(weights_of_tokens)
def test_every_token_has_a_best_choice_and_nothing_exceeds_one(weights_TK: Floats) -> None:
    found_TK = unimportance(weights_TK)
    assert (found_TK.min(axis=1) == 0).all()
    assert found_TK.max() <= 1


def test_weights_of_sixteen_bits_are_added_in_double_precision() -> None:
    weights_TK = np.array([[0.1, 0.7, 0.2]], np.float16)
    np.testing.assert_allclose(unimportance(weights_TK), by_loops(weights_TK.astype(np.float64)), rtol=1e-15)


def test_negative_weights_count_by_size() -> None:
    np.testing.assert_allclose(unimportance(np.array([[-0.5, 0.2, 0.3]])), [[0, 0.8, 0.5]])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        unimportance(np.array([[0.5, bad]]))


def test_the_papers_thresholds_give_high_low_and_skip() -> None:
    np.testing.assert_array_equal(LoadRule().decide(np.array([0, 0.6, 0.61, 0.9, 0.91, 1])), [HIGH, HIGH, LOW, LOW, SKIP, SKIP])


def test_the_second_of_two_choices_is_high_if_the_first_weighs_at_most_t1() -> None:
    decided_TK = LoadRule().decide(unimportance(np.array([[0.6, 0.4], [0.7, 0.3], [0.95, 0.05], [0.2, 0.8]])))
    np.testing.assert_array_equal(decided_TK, [[HIGH, HIGH], [HIGH, LOW], [HIGH, SKIP], [LOW, HIGH]])


@given(weights_of_tokens)
def test_thresholds_of_one_load_everything_in_high_precision(weights_TK: Floats) -> None:
    assert (LoadRule(1, 1).decide(unimportance(weights_TK)) == HIGH).all()


@given(weights_of_tokens, st.floats(0, 1), st.floats(0, 1))
def test_the_best_choice_of_a_token_is_high_under_any_rule(weights_TK: Floats, one: float, other: float) -> None:
    rule = LoadRule(min(one, other), max(one, other))
    decided_TK = rule.decide(unimportance(weights_TK))
    assert (decided_TK.min(axis=1) == HIGH).all()
    assert (decided_TK == HIGH).all() or not rule.changes_nothing(weights_TK.shape[1])


def test_a_rule_is_a_no_op_for_one_choice_and_for_t1_of_one() -> None:
    assert LoadRule().changes_nothing(top_k=1)
    assert not LoadRule().changes_nothing(top_k=2)
    assert LoadRule(1, 1).changes_nothing(top_k=8)


def test_an_expert_is_as_important_as_to_its_most_important_token() -> None:
    experts_TK, unimportance_TK = np.array([[0, 1], [1, 2], [3, 2]]), np.array([[0, 0.7], [0.4, 0.9], [0, 0.8]])
    np.testing.assert_array_equal(expert_unimportance(experts_TK, unimportance_TK, 5), [0, 0.4, 0.8, 0, math.inf])


def test_choices_that_are_not_kept_do_not_count_and_experts_without_tokens_are_skipped() -> None:
    kept_TK = np.array([[True, True], [False, True], [False, False]])
    experts_TK, unimportance_TK = np.array([[0, 1], [1, 2], [3, 3]]), np.array([[0, 0.7], [0.4, 0.9], [0, 0]])
    least_E = expert_unimportance(experts_TK, unimportance_TK, 4, kept_TK)
    np.testing.assert_array_equal(least_E, [0, 0.7, 0.9, math.inf])
    np.testing.assert_array_equal(LoadRule(1, 1).decide(least_E), [HIGH, HIGH, HIGH, SKIP])


@pytest.mark.parametrize(
    ("t1", "t2", "what", "remedy"),
    [
        (0.9, 0.6, "T2 0.6 is smaller than T1 0.9", "from 0.9 to 1"),
        (-0.1, 0.6, "T1 -0.1", "from 0 to 1"),
        (0.6, 1.1, "T2 1.1", "from 0 to 1"),
        (math.nan, 0.9, "T1 nan", "from 0 to 1"),
        (0.6, math.nan, "T2 nan", "from 0 to 1"),
    ],
)
def test_thresholds_that_make_no_sense_are_refused_in_two_lines(t1: float, t2: float, what: str, remedy: str) -> None:
    with pytest.raises(UsageError) as error:
        LoadRule(t1, t2)
    assert what in error.value.what
    assert remedy in error.value.remedy
