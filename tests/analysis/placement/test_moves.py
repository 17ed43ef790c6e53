"""Experts that devices fetch from each other, and how long it takes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.placement.moves import fetched, home_slots, move_ns, num_fetched
from moeprof.analysis.placement.virtual_parallel import DeviceLinks


def by_hand(before: list[list[int]], after: list[list[int]], nodes: int) -> list[list[int]]:
    each, found = len(before) // nodes, [[0] * len(before) for _ in range(4)]
    for device, experts in enumerate(after):
        for expert in sorted({*experts} - {*before[device]}):
            holders = [other for other, row in enumerate(before) if expert in row]
            near = [other for other in holders if other // each == device // each]
            kind, source = (0, near[0]) if near else (2, holders[0])
            found[kind][device] += 1
            found[kind + 1][source] += 1
    return found


@given(st.sampled_from([1, 2]), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_an_expert_comes_from_the_first_device_of_the_node_that_has_it(nodes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    before_DS, after_DS = (np.append(generator.permutation(6), generator.integers(0, 6, 6)).reshape(4, 3) for _ in range(2))
    moved_4D = fetched(before_DS, after_DS, 6, nodes)
    assert moved_4D.tolist() == by_hand(before_DS.tolist(), after_DS.tolist(), nodes)
    assert moved_4D[0].sum() == moved_4D[1].sum()
    assert num_fetched(moved_4D) == moved_4D[[1, 3]].sum()
    assert num_fetched(fetched(after_DS, after_DS, 6, nodes)) == 0


def test_the_slowest_device_decides_over_both_links() -> None:
    bytes_4D = np.array([[10, 0], [0, 30], [0, 8], [8, 0]], float)
    assert move_ns(bytes_4D, DeviceLinks(10, 2)) == pytest.approx(4e9), "8 bytes between nodes at 2 a second"
    assert move_ns(bytes_4D, DeviceLinks(5, 2)) == pytest.approx(6e9), "30 bytes within the node at 5 a second"


def test_experts_start_as_neighbours_and_slots_may_be_empty() -> None:
    assert home_slots(6, 3).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert home_slots(5, 2).tolist() == [[0, 1, 2], [3, 4, -1]]
    assert home_slots(2, 4).tolist() == [[0], [-1], [1], [-1]]
    assert num_fetched(fetched(home_slots(2, 4), np.array([[0], [0], [1], [1]]), 2, 1)) == 2
