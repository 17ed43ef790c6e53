"""Policies of replacement choose the victims that their definitions name, computed here by hand."""

import math

import pytest

from moeprof.policies.offloading.priority import Atu, ExpertUnit, Fifo, Lru, PriorityWeights, Replacement, WeightedPriority
from moeprof.records.errors import UsageError


def units(*experts: int, layer: int = 0) -> list[ExpertUnit]:
    return [ExpertUnit(layer, expert) for expert in experts]


def touched(policy: Replacement, experts: list[int], layer: int = 0) -> Replacement:
    """The policy after one use a token."""
    for token, expert in enumerate(experts):
        policy.touch(ExpertUnit(layer, expert), token)
    return policy


def test_lru_evicts_what_was_used_least_recently_also_across_sequences() -> None:
    policy = touched(Lru(), [1, 2, 3, 1])
    policy.reset()
    policy.touch(ExpertUnit(0, 2), 0)
    assert policy.victim(units(1, 2, 3), 0, 0) == ExpertUnit(0, 3)
    assert policy.victim(units(1, 2), 0, 0) == ExpertUnit(0, 1)
    assert policy.victim(units(1, 9), 0, 0) == ExpertUnit(0, 9)  # never used


def test_fifo_evicts_what_was_loaded_first_and_counts_a_load_after_an_eviction_as_new() -> None:
    policy = touched(Fifo(), [1, 2, 3, 1])
    assert policy.victim(units(1, 2, 3), 0, 4) == ExpertUnit(0, 1)
    policy.touch(ExpertUnit(0, 1), 4)
    assert policy.victim(units(1, 2, 3), 0, 5) == ExpertUnit(0, 2)


def test_copies_of_an_expert_in_two_precisions_are_two_units() -> None:
    policy = Fifo()
    for precision in ("int4", "high"):
        policy.touch(ExpertUnit(0, 5, precision), 0)
    policy.touch(ExpertUnit(0, 6), 1)
    assert policy.victim([ExpertUnit(0, 5, "high"), ExpertUnit(0, 6)], 0, 1) == ExpertUnit(0, 5, "high")
    assert policy.victim([ExpertUnit(0, 5, "int4"), ExpertUnit(0, 6)], 0, 1) == ExpertUnit(0, 5, "int4")


def test_atu_replaces_only_what_the_step_does_not_use_and_keeps_nothing_else() -> None:
    policy = Atu()
    for expert in (1, 2, 3):
        policy.touch(ExpertUnit(0, expert), 0)
    policy.touch(ExpertUnit(1, 7), 0)
    for expert in (2, 4):
        policy.touch(ExpertUnit(0, expert), 1)
    held = [*units(1, 2, 3, 4), ExpertUnit(1, 7)]
    assert policy.leaving(held, 0, 1) == units(1, 3)
    assert policy.victim(held, 0, 1) == ExpertUnit(0, 1)
    assert policy.victim([*units(2, 4), ExpertUnit(1, 7)], 0, 1) == ExpertUnit(1, 7)  # of another layer
    assert policy.victim(units(4, 2), 0, 1) == ExpertUnit(0, 2)  # all are in use
    policy.reset()
    assert policy.leaving(units(2, 4), 0, 1) == units(2, 4)


def test_a_priority_by_hand() -> None:
    policy = WeightedPriority(PriorityWeights(0.4, 0.3, 0.2, 0.1), num_layers=8)
    for token, was_high in ((0, True), (2, False), (3, True)):
        policy.touch(ExpertUnit(6, 1, "high" if was_high else "int4"), token, was_high)
    # Token 4 is the fifth: R = 4, F = 3, H = 2 of T = 5; from layer 5 to layer 6 it is one of 8.
    expected = 0.4 * 4 / 5 + 0.3 * 3 / 5 + 0.2 * 2 / 5 + 0.1 * (1 - 1 / 8)
    assert policy.priority(ExpertUnit(6, 1), 5, 4) == pytest.approx(expected)
    assert policy.priority(ExpertUnit(6, 1, "int4"), 5, 4) == pytest.approx(expected)
    assert policy.priority(ExpertUnit(4, 0), 5, 4) == pytest.approx(0.1 * (1 - 7 / 8))  # around, and never used
    policy.reset()
    assert policy.priority(ExpertUnit(6, 1), 5, 0) == pytest.approx(0.1 * (1 - 1 / 8))


@pytest.mark.parametrize(
    ("name", "victim"),
    [("lru", 1), ("lfu", 2), ("lhu", 3)],
)
def test_each_weight_alone_evicts_by_its_own_part(name: str, victim: int) -> None:
    policy = WeightedPriority(PriorityWeights(**{name: 1.0}), num_layers=1)
    for expert, uses, high in ((1, (0, 1, 2), True), (2, (3, 4), True), (3, (1, 2, 5), False)):
        for token in uses:
            policy.touch(ExpertUnit(0, expert), token, high)
    assert policy.victim(units(1, 2, 3), 0, 6) == ExpertUnit(0, victim)


def test_the_layer_distance_alone_evicts_the_layer_that_ran_last() -> None:
    policy = WeightedPriority(PriorityWeights(fld=1), num_layers=4)
    held = [ExpertUnit(layer, 0) for layer in range(4)]
    assert policy.victim(held, 2, 0) == ExpertUnit(1, 0)
    assert policy.victim(held, 0, 0) == ExpertUnit(3, 0)


@pytest.mark.parametrize("policy", [Lru(), Atu(), WeightedPriority(PriorityWeights(0.25, 0.25, 0.25, 0.25), 4), Fifo()])
def test_the_lowest_unit_breaks_ties_in_any_order_of_candidates(policy: Replacement) -> None:
    assert policy.victim(units(3, 1, 2), 0, 0) == ExpertUnit(0, 1)
    assert policy.victim([ExpertUnit(0, 1, "int4"), ExpertUnit(0, 1, "high")], 0, 0) == ExpertUnit(0, 1, "high")


@pytest.mark.parametrize("weights", [(0.5, 0.5, 0.5, 0), (1.5, -0.5, 0, 0), (math.nan, 0.5, 0.5, 0), (0, 0, 0, 0)])
def test_weights_that_are_no_shares_are_refused_in_two_lines(weights: tuple[float, ...]) -> None:
    with pytest.raises(UsageError) as error:
        PriorityWeights(*weights)
    assert error.value.what.startswith("eviction weights lru=")
    assert "sum 1" in error.value.remedy


def test_weights_are_written_as_they_are_given() -> None:
    assert str(PriorityWeights(0.1, 0.2, 0.7, 0)) == "lru=0.1,lfu=0.2,lhu=0.7,fld=0"
