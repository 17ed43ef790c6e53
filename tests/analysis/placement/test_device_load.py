"""Loads of devices: counted token by token, and against the floor."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.placement.device_load import (
    copy_numbers,
    device_counts,
    floor_shares,
    history_of,
    load_values,
    over_layers,
    top_shares,
)
from moeprof.analysis.placement.trial import halved
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.policies.balancing.balancer import Cluster
from moeprof.policies.balancing.registry import placed


def dealt(counts: list[list[int]], slots: list[list[int]]) -> list[list[int]]:
    """Choices of every device and step, one token after another, to the copies of its expert in turn."""
    holders = {expert: [d for d, row in enumerate(slots) for other in row if other == expert] for expert in range(len(counts))}
    loads = [[0] * len(counts[0]) for _ in slots]
    for expert, steps in enumerate(counts):
        for step, count in enumerate(steps):
            for token in range(count):
                loads[holders[expert][(token + step) % len(holders[expert])]][step] += 1
    return loads


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_devices_serve_what_is_dealt_to_their_copies(devices: int, extra: int, num_steps: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    counts_EB = generator.integers(0, 6, (4, num_steps))
    slots = np.concatenate([generator.permutation(4), generator.integers(0, 4, devices * (extra + 4) - 4)])
    slots_DS = slots.reshape(devices, -1)
    matrix = matrix_of_counts("0", "", counts_EB + (counts_EB.sum(axis=0) == 0), 1)
    assert device_counts(matrix, slots_DS).tolist() == dealt(matrix.counts_EB.tolist(), slots_DS.tolist())


def test_many_steps_are_counted_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moeprof.analysis.placement.device_load.CELLS", 10)
    counts_EB, slots_DS = np.arange(28).reshape(4, 7), np.array([[0, 1, 0], [3, 2, 1]])
    assert device_counts(matrix_of_counts("0", "", counts_EB, 1), slots_DS).tolist() == dealt(
        counts_EB.tolist(), slots_DS.tolist()
    )


def test_copies_take_turns_by_device() -> None:
    assert copy_numbers(np.array([5, 2, 5, 5, 2])).tolist() == [0, 0, 1, 2, 1]


@given(st.sampled_from(["contiguous", "greedy", "anti-correlation"]), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_no_placement_without_copies_passes_the_floor(name: str, seed: int) -> None:
    counts_EB = np.random.default_rng(seed).integers(0, 9, (8, 12)) ** 2
    halves = halved(matrix_of_counts("0", "", counts_EB, 1))
    assert halves is not None
    top_B = top_shares(halves.test, placed(name, history_of(halves.history), Cluster(4, 2)))
    assert (top_B >= floor_shares(halves.test, 4) - 1e-12).all()
    values = load_values(top_B)
    assert 0.25 - 1e-12 <= values["avg_max_load"] <= values["max_load"] <= 1


def test_loads_by_hand() -> None:
    matrix = matrix_of_counts("0", "", np.array([[4, 0], [2, 5], [1, 5], [1, 0]]), 1)
    slots_DS = np.array([[0, 1], [2, 3]])
    assert top_shares(matrix, slots_DS).tolist() == [0.75, 0.5]
    assert load_values(top_shares(matrix, slots_DS)) == {"max_load": 0.75, "avg_max_load": 0.625}
    assert floor_shares(matrix, 2).tolist() == [0.5, 0.5]
    assert floor_shares(matrix, 4).tolist() == [0.5, 0.5]
    assert floor_shares(matrix, 1).tolist() == [1.0, 1.0]


def test_a_history_is_the_mean_of_shares_not_of_counts() -> None:
    history = history_of(matrix_of_counts("0", "", np.array([[1, 0, 90], [0, 1, 10]]), 1))
    assert history.shares_E.tolist() == pytest.approx([1.9 / 3, 1.1 / 3])
    assert history.correlation_EE.ravel() == pytest.approx(np.corrcoef([[1, 0, 0.9], [0, 1, 0.1]]).ravel())


def test_constant_loads_correlate_with_nothing_and_are_placed() -> None:
    history = history_of(matrix_of_counts("0", "", np.full((4, 3), 2), 1))
    assert not history.correlation_EE.any()
    assert placed("anti-correlation", history, Cluster(2, 2)).tolist() == [[0, 2], [1, 3]]


def test_layers_come_first_and_quantiles_after() -> None:
    found = over_layers([{"max_load": value} for value in (0.1, 0.2, 0.3, 0.4, 1.0)])
    assert found == pytest.approx(
        {"max_load": 0.4, "max_load_p50": 0.3, "max_load_p90": 0.76, "max_load_worst": 1.0},
    )


def sorted_zipf(num_steps: int, choices: int) -> Counts:
    """Counts (E, B) of 128 experts in order of heat, exponent 1.2."""
    weights = np.arange(1, 129, dtype=np.float64) ** -1.2
    return np.random.default_rng(0).multinomial(choices, weights / weights.sum(), num_steps).T


def test_greedy_brings_sorted_zipf_from_above_0_6_to_below_0_4_on_steps_it_has_not_seen() -> None:
    halves = halved(matrix_of_counts("0", "", sorted_zipf(60, 2048), 2))
    assert halves is not None
    found = {
        name: load_values(top_shares(halves.test, placed(name, history_of(halves.history), Cluster(8, 16))))
        for name in ("contiguous", "greedy")
    }
    assert min(found["contiguous"].values()) > 0.6
    assert max(found["greedy"].values()) < 0.4
    assert found["contiguous"]["avg_max_load"] == pytest.approx(0.740, abs=0.01)
    assert found["greedy"]["avg_max_load"] == pytest.approx(0.283, abs=0.01)
