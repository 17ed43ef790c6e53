"""The least mean square load: what the search may not do, what it cannot improve further, and loads whose best placement is known."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, combinations_with_replacement
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.local_search import Loads, improve, second_moments, uneven
from moeprof.policies.balancing.mean_square import first_placement
from moeprof.policies.balancing.registry import placed
from moeprof.records.arrays import Floats, Ints
from tests.policies.balancing.loads import correlated_groups, device_shares, history_of

NAMES = ["mean-square", "mean-square-copies"]


def drawn_shares(seed: int, experts: int, steps: int = 30) -> Floats:
    """Shares (E, B) of experts that are busy in groups of two."""
    generator = np.random.default_rng(seed)
    busy_EB = np.repeat(generator.gamma(0.7, 1, (-(-experts // 2), steps)), 2, axis=0)[generator.permutation(experts)]
    weights_EB = (busy_EB + 0.1) * generator.gamma(1, 1, experts)[:, None]
    return np.asarray(weights_EB / weights_EB.sum(axis=0))


def mean_squared(shares_EB: Floats, slots_DS: Ints, choices: float = inf) -> float:
    """The sum over devices of the mean square load, step by step, and what whole choices add."""
    copies = np.bincount(slots_DS.ravel(), minlength=len(shares_EB))
    loads = Loads(shares_EB.mean(axis=1), np.empty((0, 0)), choices)
    whole = sum(uneven(loads, expert, count) for expert, count in enumerate(copies.tolist()))
    return float((device_shares(shares_EB, slots_DS) ** 2).mean(axis=1).sum() + whole)


def searched(shares_EB: Floats, cluster: Cluster, choices: float) -> tuple[Ints, Ints]:
    """The placement before and after searches until nothing changes."""
    history = replace(history_of(shares_EB), choices=choices)
    moments_EE = second_moments(history.weights_E, history.spreads_E, history.correlation_EE)
    before_DS = first_placement(history, cluster)
    after_DS = np.array(before_DS)
    for _ in range(20):
        improve(Loads(history.weights_E, moments_EE, choices), after_DS)
    return before_DS, after_DS


def neighbours(slots_DS: Ints, num_experts: int) -> Iterator[Ints]:
    """Every placement that is one swap or one other copy away, without an expert twice on a device and with every expert."""
    cells = list(np.ndindex(slots_DS.shape))
    for one, other in combinations(cells, 2):
        near_DS = slots_DS.copy()
        near_DS[one], near_DS[other] = slots_DS[other], slots_DS[one]
        yield near_DS
    for cell in cells:
        for expert in range(num_experts):
            near_DS = slots_DS.copy()
            near_DS[cell] = expert
            yield near_DS


def allowed(slots_DS: Ints, num_experts: int) -> bool:
    return len(set(slots_DS.ravel().tolist())) == num_experts and all(len(set(row)) == len(row) for row in slots_DS.tolist())


@given(st.integers(2, 3), st.integers(2, 4), st.integers(0, 3), st.sampled_from([inf, 12.0]), st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_no_swap_and_no_other_copy_improves_what_the_search_leaves(
    devices: int, slots: int, missing: int, choices: float, seed: int
) -> None:
    experts = max(devices * slots - missing, slots)
    shares_EB = drawn_shares(seed, experts)
    before_DS, after_DS = searched(shares_EB, Cluster(devices, slots), choices)
    found = mean_squared(shares_EB, after_DS, choices)
    assert found <= mean_squared(shares_EB, before_DS, choices) * (1 + 1e-9)
    near = [near_DS for near_DS in neighbours(after_DS, experts) if allowed(near_DS, experts)]
    assert min([mean_squared(shares_EB, near_DS, choices) for near_DS in near], default=inf) >= found * (1 - 1e-8)


@pytest.mark.parametrize("seed", range(10))
def test_two_devices_are_within_a_twentieth_of_the_best_of_all_placements(seed: int) -> None:
    eight_EB, six_EB = drawn_shares(seed, 8), drawn_shares(seed, 6)
    halves = [np.array([one, [*set(range(8)) - {*one}]]) for one in combinations(range(8), 4)]
    copied = [np.array(pair) for pair in combinations_with_replacement(list(combinations(range(6), 4)), 2)]
    for name, shares_EB, every in ((NAMES[0], eight_EB, halves), (NAMES[1], six_EB, copied)):
        best = min(mean_squared(shares_EB, slots_DS) for slots_DS in every if allowed(slots_DS, len(shares_EB)))
        found = mean_squared(shares_EB, placed(name, history_of(shares_EB), Cluster(2, 4)))
        assert best * (1 - 1e-9) <= found <= 1.05 * best


@given(st.sampled_from(NAMES), st.integers(2, 4), st.integers(2, 5), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_same_loads_give_the_same_placement_in_any_unit(name: str, devices: int, slots: int, seed: int) -> None:
    experts = devices * slots if name == NAMES[0] else max(slots, devices * slots - 2)
    history = history_of(drawn_shares(seed, experts))
    scaled = replace(history, shares_E=1024 * history.shares_E, deviation_E=1024 * history.deviation_E)
    first, again, other = (placed(name, one, Cluster(devices, slots)).tolist() for one in (history, history, scaled))
    assert first == again == other
    assert all(row == sorted(set(row)) for row in first)


def pairs_of_one_step() -> Floats:
    """Shares (E, B) of eight experts, of which each step uses two neighbours, all pairs equally often."""
    return np.repeat(np.eye(4), 2, axis=0).repeat(5, axis=1) / 2


def test_experts_that_are_always_chosen_together_are_put_on_two_devices() -> None:
    shares_EB = pairs_of_one_step()
    history = history_of(shares_EB)
    assert device_shares(shares_EB, placed("greedy", history, Cluster(2, 4))).max(axis=0).mean() == pytest.approx(0.5)
    mixed_EB = shares_EB[[0, 2, 1, 4, 3, 6, 5, 7]]
    for name in ("greedy", "eplb", "mean-square"):
        top = device_shares(mixed_EB, placed(name, history_of(mixed_EB), Cluster(2, 4))).max(axis=0).mean()
        assert top == pytest.approx(0.5 if name == "mean-square" else 0.75)


@pytest.mark.parametrize("seed", [0, 1])
def test_experts_that_are_busy_together_are_spread_over_devices(seed: int) -> None:
    shares_EB = correlated_groups(seed)
    history, test_EB = history_of(shares_EB[:, :200]), shares_EB[:, 200:]
    slots = {"greedy": 16, "anti-correlation": 16, "mean-square": 16, "eplb-distinct": 17, "mean-square-copies": 17}
    top = {
        name: device_shares(test_EB, placed(name, history, Cluster(8, number))).max(axis=0).mean()
        for name, number in slots.items()
    }
    assert top["mean-square"] < min(0.75 * top["greedy"], 1.05 * top["anti-correlation"])
    assert top["mean-square-copies"] < 0.75 * top["eplb-distinct"]


def test_no_placement_is_better_than_another_in_steps_of_one_choice() -> None:
    generator = np.random.default_rng(0)
    shares_EB = np.eye(4)[generator.choice(4, 40, p=[0.4, 0.3, 0.2, 0.1])].T
    for slots in ([[0, 1], [2, 3]], [[0, 1, 2], [0, 1, 3]], [[0, 1], [0, 2], [0, 3]]):
        assert mean_squared(shares_EB, np.array(slots), choices=1) == pytest.approx(1)


@pytest.mark.parametrize("copies", [2, 3, 5])
def test_whole_choices_are_as_uneven_as_the_rotation_makes_them(copies: int) -> None:
    def served(number: int) -> Floats:
        """Choices of the first copy in each step of a turn of the rotation."""
        return np.array([sum((choice + step) % copies == 0 for choice in range(number)) for step in range(copies)])

    one = Loads(np.array([1.0]), np.empty((0, 0)), 1.0)
    assert uneven(one, 0, copies) == pytest.approx(min(copies * served(1).var(), (copies**2 - 1) / (6 * copies)))
    many = Loads(np.array([1.0]), np.empty((0, 0)), 100.0)
    mean = np.mean([copies * served(number).var() for number in range(20 * copies, 21 * copies)])
    assert uneven(many, 0, copies) == pytest.approx(mean / 100**2)
    assert uneven(many, 0, 1) == uneven(one, 0, 1) == 0
