"""Placement from the last one by few exchanges."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.policies.balancing.balancer import Cluster, History, Slots
from moeprof.policies.balancing.incremental import HYSTERESIS, fewest_moves, rebalanced
from moeprof.policies.balancing.registry import placed
from moeprof.records.arrays import Floats
from tests.policies.balancing.loads import device_shares


def loads(slots_DS: Slots, weights_E: Floats) -> Floats:
    return device_shares(np.asarray(weights_E, np.float64)[:, None], slots_DS)[:, 0]


def received(before_DS: Slots, after_DS: Slots) -> list[int]:
    """Slots of each device that hold another expert than before."""
    return (before_DS != after_DS).sum(axis=1).tolist()


def by_hand(slots: list[list[int]], weights: list[int], most: int, least: float) -> list[list[int]]:
    """The rule in plain words, with whole weights: all swaps of the busiest device are tried, the first of the best is made."""
    slots, moved = [list(row) for row in slots], [0] * len(slots)
    while True:
        load = [sum(weights[e] for e in row) for row in slots]
        busiest = load.index(max(load))
        best = None
        for own in range(len(slots[0])):
            for device in range(len(slots)):
                for place in range(len(slots[0])):
                    if device != busiest and moved[device] < most and moved[busiest] < most:
                        fall = weights[slots[busiest][own]] - weights[slots[device][place]]
                        after = max(load[busiest] - fall, load[device] + fall)
                        if best is None or after < best[0]:
                            best = (after, own, device, place)
        if best is None or best[0] >= load[busiest] - max(least, HYSTERESIS * load[busiest]):
            return slots
        _, own, device, place = best
        slots[busiest][own], slots[device][place] = slots[device][place], slots[busiest][own]
        moved[busiest] += 1
        moved[device] += 1


def test_the_best_pair_changes_places() -> None:
    assert rebalanced(np.array([[0, 1], [2, 3]]), np.array([4, 3, 2, 1]), 1).tolist() == [[2, 1], [0, 3]]


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 6), st.data())
@settings(max_examples=80, deadline=None)
def test_exchanges_are_those_that_a_plain_loop_makes(
    devices: int, each: int, most: int, least: int, data: st.DataObject
) -> None:
    experts = devices * each
    weights = data.draw(st.lists(st.integers(0, 20), min_size=experts, max_size=experts))
    slots = np.array(data.draw(st.permutations(range(experts)))).reshape(devices, each)
    assert rebalanced(slots, np.array(weights), most, least).tolist() == by_hand(slots.tolist(), weights, most, least)


@given(st.sampled_from(["contiguous", "eplb", "eplb-distinct"]), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_all_experts_stay_placed_few_move_and_the_largest_load_only_falls(name: str, most: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    before_E, now_E = generator.dirichlet(np.full(12, 0.5), 2)
    before_DS = placed(name, History.of_totals(before_E), Cluster(3, 4 if name == "contiguous" else 6))
    after_DS = rebalanced(before_DS, now_E, most)
    assert after_DS.shape == before_DS.shape
    assert set(after_DS.ravel().tolist()) == set(range(12))
    assert max(received(before_DS, after_DS)) <= most
    assert loads(after_DS, now_E).max() <= loads(before_DS, now_E).max() + 1e-12
    assert loads(after_DS, now_E).sum() == pytest.approx(1)


def test_a_hot_expert_gets_a_copy_in_place_of_one_that_others_replace() -> None:
    slots_DS = np.array([[0, 1, 2], [3, 4, 5], [1, 4, 5]])
    after_DS = rebalanced(slots_DS, np.array([9, 1, 1, 1, 1, 1]), 1)
    # experts 1, 4 and 5 have two copies; each of devices 1 and 2 gives up one of them for expert 0, and loads become 4.5 to 5
    assert [row.tolist().count(0) for row in after_DS] == [1, 1, 1]
    assert received(slots_DS, after_DS) == [0, 1, 1]
    assert loads(after_DS, np.array([9, 1, 1, 1, 1, 1])).tolist() == [5, 4.5, 4.5]
    assert set(after_DS.ravel().tolist()) == set(range(6))


def test_what_gains_too_little_moves_nothing() -> None:
    slots_DS = np.array([[0, 1], [2, 3]])
    assert rebalanced(slots_DS, np.array([4, 3, 2, 1]), 1, least=2.0).tolist() == slots_DS.tolist(), "it would fall by 2"
    assert rebalanced(slots_DS, np.array([104, 100, 102, 100]), 4).tolist() == slots_DS.tolist(), "by 1 of 204"
    assert rebalanced(slots_DS, np.ones(4), 4).tolist() == slots_DS.tolist()


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_devices_are_renamed_so_that_they_keep_the_most_experts(seed: int) -> None:
    generator = np.random.default_rng(seed)
    before_DS, after_DS = (generator.permutation(12).reshape(4, 3) for _ in range(2))

    def kept(slots_DS: Slots) -> int:
        return sum(len({*old} & {*new}) for old, new in zip(before_DS.tolist(), slots_DS.tolist(), strict=True))

    renamed_DS = fewest_moves(before_DS, after_DS)
    assert sorted(map(tuple, renamed_DS.tolist())) == sorted(map(tuple, after_DS.tolist()))
    assert kept(renamed_DS) == max(kept(after_DS[list(order)]) for order in permutations(range(4)))
    in_nodes_DS = fewest_moves(before_DS, after_DS, num_nodes=2)
    for node in (slice(0, 2), slice(2, 4)):
        assert sorted(map(tuple, in_nodes_DS[node].tolist())) == sorted(map(tuple, after_DS[node].tolist()))
    orders = [(a, b, c, d) for a, b, c, d in permutations(range(4)) if {a, b} == {0, 1}]
    assert kept(in_nodes_DS) == max(kept(after_DS[list(order)]) for order in orders)
