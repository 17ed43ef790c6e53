"""The map of correlated experts."""

import numpy as np
import pytest

from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.reporters.sections.correlation import correlation_maps, grouped
from tests.policies.balancing.loads import correlated_groups


def test_groups_that_are_busy_together_stand_side_by_side() -> None:
    # 0, 2 and 4 are busy in even steps, 1, 3 and 5 in odd ones
    counts_EB = np.array([[9 if expert % 2 == step % 2 else 0 for step in range(6)] for expert in range(6)])
    (found,) = correlation_maps([[matrix_of_counts("1", "", counts_EB, 1)]])
    assert found.title == "Layer 1: correlation of expert loads"
    halves = {frozenset(found.labels[:3]), frozenset(found.labels[3:])}
    assert halves == {frozenset("024"), frozenset("135")}
    square, apart = np.ones((3, 3)), np.zeros((3, 3))
    assert np.array(found.values) == pytest.approx(np.block([[square, apart], [apart, square]]))


def test_sixteen_groups_make_sixteen_squares() -> None:
    counts_EB = np.round(256 * correlated_groups(0)).astype(np.int64)
    (found,) = correlation_maps([[matrix_of_counts("1", "", counts_EB, 2)]])
    values = np.array(found.values)
    assert values.shape == (32, 32)  # groups of four neighbours, two of them to a group of eight experts
    together = values.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    assert together.diagonal().min() > 0.5
    assert (together - np.diag(together.diagonal())).max() < 0.2


def test_few_or_constant_experts_have_no_map() -> None:
    assert list(correlation_maps([[matrix_of_counts("1", "", np.full((4, 5), 3), 1)]])) == []
    assert list(correlation_maps([[matrix_of_counts("1", "", np.array([[1, 2], [2, 1]]), 1)]])) == []


def test_neighbours_are_averaged() -> None:
    values_MM = np.arange(33.0 * 33).reshape(33, 33)
    assert grouped(values_MM)[0, 0] == pytest.approx(values_MM[:2, :2].mean())
    assert grouped(values_MM)[-1, -1] == values_MM[-1, -1]
