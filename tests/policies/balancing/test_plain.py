"""Balancers that make no copies: the paper's placements, and what holds for any loads."""

import heapq
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.policies.balancing.balancer import Cluster, History
from moeprof.policies.balancing.registry import placed
from moeprof.records.arrays import Floats
from tests.policies.balancing.loads import PLAIN, correlated_groups, device_shares, history_of, largest_share, zipf

EIGHT = np.arange(8, 0, -1)
"""Weights 8 to 1 of experts 0 to 7."""


def weights_on(slots: object) -> list[set[int]]:
    """The weights of 8 to 1 that each device holds."""
    return [{int(EIGHT[expert]) for expert in row} for row in np.asarray(slots).tolist()]


def test_greedy_places_eight_weights_as_in_the_paper() -> None:
    history = History.of_totals(EIGHT)
    assert weights_on(placed("greedy", history, Cluster(2, 4))) == [{8, 5, 4, 1}, {7, 6, 3, 2}]
    assert weights_on(placed("greedy", history, Cluster(4, 2))) == [{8, 1}, {7, 2}, {6, 3}, {5, 4}]


def test_round_robin_deals_experts_out_like_cards() -> None:
    slots_DS = placed("round-robin", History.of_totals(EIGHT), Cluster(2, 4))
    assert slots_DS.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]]
    assert largest_share(EIGHT, "round-robin", Cluster(2, 4)) == pytest.approx(20 / 36)


@pytest.mark.parametrize(("devices", "greedy", "contiguous"), [(2, 0.5, 26 / 36), (4, 0.25, 15 / 36)])
def test_eight_weights_become_even(devices: int, greedy: float, contiguous: float) -> None:
    cluster = Cluster(devices, 8 // devices)
    assert largest_share(EIGHT, "greedy", cluster) == pytest.approx(greedy, abs=1e-12)
    assert largest_share(EIGHT, "contiguous", cluster) == pytest.approx(contiguous, abs=1e-12)


def test_sorted_zipf_falls_to_nearly_the_hottest_expert() -> None:
    cluster, weights = Cluster(8, 16), zipf(128)
    assert largest_share(weights, "contiguous", cluster) == pytest.approx(0.740, abs=5e-4)
    assert largest_share(weights, "greedy", cluster) == pytest.approx(0.283, abs=5e-4)
    assert weights[0] / weights.sum() == pytest.approx(0.270, abs=5e-4)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_experts_that_are_busy_together_need_anti_correlation(seed: int) -> None:
    shares_EB = correlated_groups(seed)
    history, test_EB = history_of(shares_EB[:, :200]), shares_EB[:, 200:]
    mean = {name: device_shares(test_EB, placed(name, history, Cluster(8, 16))).max(axis=0).mean() for name in PLAIN}
    assert mean["contiguous"] == pytest.approx(0.26, abs=0.03)
    assert mean["greedy"] > 0.9 * mean["contiguous"]
    assert mean["anti-correlation"] == pytest.approx(0.162, abs=0.01)
    assert mean["anti-correlation"] < 0.7 * mean["contiguous"]
    assert mean["anti-correlation-rescaled"] < 0.85 * mean["contiguous"]


def by_heap(weights: list[int], devices: int) -> list[list[int]]:
    """Greedy by another data structure, over whole numbers."""
    heap: list[tuple[int, int, list[int]]] = [(0, device, []) for device in range(devices)]
    full: list[tuple[int, list[int]]] = []
    for expert in sorted(range(len(weights)), key=lambda expert: -weights[expert]):
        load, device, members = heapq.heappop(heap)
        members.append(expert)
        if len(members) == len(weights) // devices:
            full.append((device, members))
        else:
            heapq.heappush(heap, (load + weights[expert], device, members))
    return [sorted(members) for _, members in sorted(full)]


@given(st.integers(1, 4), st.integers(2, 5), st.data())
@settings(max_examples=60, deadline=None)
def test_greedy_is_what_a_heap_gives_whatever_the_ties(devices: int, each: int, data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 9), min_size=devices * each, max_size=devices * each).filter(any))
    assert placed("greedy", History.of_totals(np.array(weights) / sum(weights)), Cluster(devices, each)).tolist() == by_heap(
        weights, devices
    )


def test_device_loads_that_differ_by_rounding_only_are_ties() -> None:
    # 0.1 + 0.2 is above 0.3 as floats add up, so that without rounding expert 3 went to device 0
    assert placed("greedy", History.of_totals([0.3, 0.2, 0.1, 0.06, 0.05, 0.04]), Cluster(2, 3)).tolist() == [
        [0, 3, 5],
        [1, 2, 4],
    ]


@given(st.sampled_from(PLAIN), st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_every_expert_stands_once_on_devices_of_equal_size(name: str, devices: int, each: int, seed: int) -> None:
    shares_EB = np.random.default_rng(seed).dirichlet(np.full(devices * each, 0.5), 9).T
    slots_DS = placed(name, history_of(shares_EB), Cluster(devices, each))
    assert slots_DS.shape == (devices, each)
    assert sorted(slots_DS.ravel().tolist()) == list(range(devices * each))
    top_B = device_shares(shares_EB, slots_DS).max(axis=0)
    assert (top_B >= np.maximum(1 / devices, shares_EB.max(axis=0)) - 1e-12).all()
    assert 1 / devices - 1e-12 <= top_B.mean() <= top_B.max() <= 1 + 1e-12


@given(st.lists(st.integers(1, 50), min_size=8, max_size=8))
@settings(max_examples=40, deadline=None)
def test_greedy_is_near_the_best_of_all_placements(weights: list[int]) -> None:
    best = min(max(sum(chosen), sum(weights) - sum(chosen)) for chosen in combinations(weights, 4)) / sum(weights)
    found = largest_share(weights, "greedy", Cluster(2, 4))
    assert best - 1e-12 <= found <= best + max(weights) / sum(weights)


@pytest.mark.parametrize("name", PLAIN)
def test_a_layer_that_was_never_active_and_constant_loads_are_placed_all_the_same(name: str) -> None:
    for weights in (np.zeros(6), np.ones(6)):
        slots_DS = placed(name, History.of_totals(weights), Cluster(3, 2))
        assert sorted(slots_DS.ravel().tolist()) == list(range(6))
    assert placed("greedy", History.of_totals(np.zeros(6)), Cluster(3, 2)).tolist() == [[0, 3], [1, 4], [2, 5]]


@pytest.mark.parametrize("name", PLAIN)
def test_one_expert_per_device_leaves_everybody_at_home(name: str) -> None:
    assert placed(name, History.of_totals([1, 5, 2, 9]), Cluster(4, 1)).ravel().tolist() == [0, 1, 2, 3]


def by_formula(mean: Floats, correlation: Floats, devices: int) -> list[list[int]]:
    """Paper 6.3 word by word, with sums that are made anew for every expert and device."""
    members: list[list[int]] = [[] for _ in range(devices)]
    for expert in sorted(range(len(mean)), key=lambda expert: -mean[expert]):
        open_devices = [device for device in range(devices) if len(members[device]) < len(mean) // devices]
        cost = {device: sum(mean[m] + 0.5 * correlation[expert, m] for m in members[device]) for device in open_devices}
        members[min(open_devices, key=lambda device: (round(cost[device], 9), device))].append(expert)
    return [sorted(found) for found in members]


@pytest.mark.parametrize(("name", "factor"), [("anti-correlation", 1), ("anti-correlation-rescaled", 12)])
@pytest.mark.parametrize("seed", range(5))
def test_anti_correlation_is_the_papers_formula(name: str, factor: int, seed: int) -> None:
    shares_EB = np.random.default_rng(seed).dirichlet(np.full(12, 0.4), 30).T
    expected = by_formula(factor * shares_EB.mean(axis=1), np.corrcoef(shares_EB), 3)
    assert placed(name, history_of(shares_EB), Cluster(3, 4)).tolist() == expected


def test_experts_of_one_time_are_kept_apart() -> None:
    shares_EB = np.array([[0.6, 0.0, 0.5, 0.1], [0.4, 0.0, 0.3, 0.1], [0.0, 0.6, 0.1, 0.4], [0.0, 0.4, 0.1, 0.4]])
    assert placed("anti-correlation", history_of(shares_EB), Cluster(2, 2)).tolist() == [[0, 2], [1, 3]]
    assert placed("contiguous", history_of(shares_EB), Cluster(2, 2)).tolist() == [[0, 1], [2, 3]]
