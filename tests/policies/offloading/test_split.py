"""The split of experts between two sides is the best one for few experts, and near it for many."""

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.policies.offloading.split import ExpertSplit, LinearTime, SplitCosts, crossover_rows, split_experts
from moeprof.records.arrays import Flags, Floats, Ints

Layer = tuple[Floats, Floats, Ints, Flags]
"""Times near and far, rows, and which experts are resident."""


@st.composite
def drawn_layers(draw: st.DrawFn, most: int = 7) -> Layer:
    """Whole times, whose sums are exact."""
    number = draw(st.integers(0, most))
    columns = [draw(st.lists(st.integers(low, 20), min_size=number, max_size=number)) for low in (0, 0, 1)]
    resident = draw(st.lists(st.booleans(), min_size=number, max_size=number))
    return np.array(columns[0], float), np.array(columns[1], float), np.array(columns[2], np.int64), np.array(resident, bool)


def fewest(near_E: Floats, far_E: Floats, resident_E: Flags) -> tuple[float, int]:
    """The smallest makespan of all splits, and the fewest far experts that reach it."""
    splits = product(*((False,) if resident else (False, True) for resident in resident_E))
    return min(
        (
            max(
                sum((near for near, away in zip(near_E, far, strict=True) if not away), 0.0),
                sum((time for time, away in zip(far_E, far, strict=True) if away), 0.0),
            ),
            sum(far),
        )
        for far in splits
    )


@given(drawn_layers())
def test_few_experts_are_split_as_well_as_any_split_does(layer: Layer) -> None:
    near_E, far_E, _, resident_E = layer
    found = split_experts(*layer)
    assert (found.makespan, found.far_E.sum()) == fewest(near_E, far_E, resident_E)


@given(drawn_layers())
def test_a_split_takes_the_time_of_its_busier_side_and_resident_experts_stay_near(layer: Layer) -> None:
    near_E, far_E, _, resident_E = layer
    for found in (split_experts(*layer), split_experts(*layer, max_exhaustive=0)):
        assert not (found.far_E & resident_E).any()
        assert found.near_time == near_E[~found.far_E].sum()
        assert found.far_time == far_E[found.far_E].sum()
        assert found.makespan == max(found.near_time, found.far_time)


@given(drawn_layers())
def test_the_scan_finds_the_best_number_of_experts_with_the_fewest_rows(layer: Layer) -> None:
    near_E, far_E, rows_E, resident_E = layer
    order = sorted(np.flatnonzero(~resident_E).tolist(), key=lambda expert: (rows_E[expert], expert))
    spans = [max(near_E.sum() - near_E[order[:number]].sum(), far_E[order[:number]].sum()) for number in range(len(order) + 1)]
    found = split_experts(*layer, max_exhaustive=0)
    assert np.flatnonzero(found.far_E).tolist() == sorted(order[: int(np.argmin(spans))])


@pytest.mark.parametrize("max_exhaustive", [0, 12])
def test_a_far_side_or_a_link_of_infinite_time_is_not_used(max_exhaustive: int) -> None:
    rows_E, resident_E = np.array([1, 2, 3, 4]), np.array([False, True, False, False])
    ordinary = LinearTime(1, 1)
    remote = SplitCosts(ordinary, ordinary, LinearTime(math.inf), ordinary)
    assert not split(remote, rows_E, resident_E, max_exhaustive).far_E.any()
    link = SplitCosts(LinearTime(math.inf), ordinary, ordinary, ordinary)
    np.testing.assert_array_equal(split(link, rows_E, resident_E, max_exhaustive).far_E, ~resident_E)


def split(costs: SplitCosts, rows_E: Ints, resident_E: Flags, max_exhaustive: int = 12) -> ExpertSplit:
    """Experts of 100 bytes, rows of 4."""
    near_E, far_E = costs.near_times(rows_E, 100, resident_E), costs.far_times(rows_E, 4)
    return split_experts(near_E, far_E, rows_E, resident_E, max_exhaustive)


def test_costs_by_hand() -> None:
    costs = SplitCosts(
        LinearTime(10, 0.5), LinearTime(1, 8), LinearTime(2, 3, least=9), LinearTime(0.5, 0.25), overlapped=False
    )
    rows_E, resident_E = np.array([1, 10]), np.array([False, True])
    assert costs.near_times(rows_E, 100, resident_E).tolist() == [9 + 60, 81]
    assert costs.far_times(rows_E, 4).tolist() == [9 + 0.5 + 2, 32 + 0.5 + 20]
    overlapped = SplitCosts(costs.link, costs.near, costs.far, costs.activations)
    assert overlapped.near_times(rows_E, 100, ~resident_E).tolist() == [9, 81]
    assert overlapped.near_times(rows_E, 100, resident_E).tolist() == [60, 81]


def test_experts_with_few_rows_are_computed_where_they_are_and_those_with_many_are_moved() -> None:
    costs = SplitCosts(LinearTime(0, 1), LinearTime(0, 1), LinearTime(0, 10), LinearTime(0, 1))
    found = split(costs, np.array([64, 1, 2, 1]), np.zeros(4, bool))
    assert found.far_E.tolist() == [False, True, True, True]
    assert (found.near_time, found.far_time) == (100, 72)


def test_rows_outweigh_an_experts_weights_above_the_crossover() -> None:
    wide, deep = 1024, 4096
    assert crossover_rows(expert_bytes=3 * wide * deep * 2, row_bytes=wide * 2) == 1.5 * deep  # a gated expert: 1.5 f


def random_layers(link_bound: bool) -> list[Layer]:
    """500 layers of 8 experts; the near side takes as long for each, or longer for more rows."""
    generator = np.random.default_rng(3)
    layers = []
    for _ in range(500):
        rows_E = generator.geometric(0.05, 8)
        near_E = np.full(8, 40.0) if link_bound else 40.0 + rows_E * generator.choice([0.5, 1, 2])
        layers.append((near_E, 2.0 + rows_E * generator.choice([0.5, 1, 2]), rows_E, np.zeros(8, bool)))
    return layers


def excess(layers: list[Layer]) -> Floats:
    """By how much the scan is slower than the best split, as a fraction."""
    pairs = [(split_experts(*layer, max_exhaustive=0).makespan, split_experts(*layer).makespan) for layer in layers]
    return np.array([scanned / best - 1 for scanned, best in pairs])


def test_the_scan_is_optimal_if_the_near_side_takes_as_long_for_each_expert() -> None:
    assert (excess(random_layers(link_bound=True)) < 1e-12).all()


def test_the_scan_is_near_the_best_split_if_the_near_side_takes_longer_for_more_rows() -> None:
    worse = excess(random_layers(link_bound=False))
    assert (worse > 1e-12).any()
    assert worse.mean() < 0.1
