"""Correlation agrees with numpy's and has no number for an expert that never varies."""

import numpy as np
import pytest
from hypothesis import given

from moeprof.analysis.routing.correlation import clustered, correlation, products_by_cell, strongest_pairs, varying
from moeprof.analysis.routing.load_matrix import LoadMatrix, load_matrices
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of


def matrix_of(*experts: list[int], num_experts: int = 4) -> LoadMatrix:
    (matrix,) = load_matrices(trace_of(steps_of(*experts), num_experts=num_experts))
    return matrix


def test_experts_busy_in_the_same_steps_correlate_and_the_others_oppose_them() -> None:
    found = correlation(matrix_of([0, 1], [2, 3], [0, 1], [2, 3]))
    np.testing.assert_allclose(found.values_EE, [[1, 1, -1, -1], [1, 1, -1, -1], [-1, -1, 1, 1], [-1, -1, 1, 1]])


def test_a_never_active_and_a_constant_expert_have_none() -> None:
    found = correlation(matrix_of([0, 1], [0, 2], [0, 2], num_experts=5))
    assert found.defined_E.tolist() == [False, True, True, False, False]
    assert found.experts.tolist() == [1, 2]
    np.testing.assert_allclose(found.values_MM, [[1, -1], [-1, 1]])
    assert found.values_EE[0].tolist() == [0] * 5


def test_a_share_that_is_the_same_by_another_division_is_constant() -> None:
    rows = [Row(step, expert, sequence=token) for step, tokens in ((0, [0, 1, 1]), (1, [0, 0, 1, 1, 2, 2]))
            for token, expert in enumerate(tokens)]  # fmt: skip
    (matrix,) = load_matrices(trace_of(rows))
    assert correlation(matrix).defined_E.tolist() == [False, True, True, False]


@pytest.mark.parametrize("steps", [[[0, 1]], [[0], [0]], [[2]]])
def test_a_single_step_or_a_single_expert_correlates_with_nothing(steps: list[list[int]]) -> None:
    found = correlation(matrix_of(*steps))
    assert not found.defined_E.any()
    assert not found.values_EE.any()
    assert clustered(found) == []
    assert strongest_pairs(found, 3) == []


def test_the_order_puts_experts_that_are_busy_together_side_by_side() -> None:
    found = correlation(matrix_of([0, 4], [1, 5], [2, 3], [0, 4], [1, 5], [2, 3], num_experts=7))
    order = clustered(found)
    assert sorted(order) == [0, 1, 2, 3, 4, 5]
    assert {frozenset(order[at : at + 2]) for at in (0, 2, 4)} == {frozenset({0, 4}), frozenset({1, 5}), frozenset({2, 3})}
    assert clustered(correlation(matrix_of([0, 4], [1, 5], [2, 3], [0, 4], [1, 5], [2, 3], num_experts=7))) == order


def test_the_strongest_pairs_come_first_and_ties_by_id() -> None:
    found = correlation(matrix_of([0, 1], [2, 3], [0, 1], [2, 3], [0, 2, 2]))
    pairs = strongest_pairs(found, 2)
    expected = np.corrcoef([[0.5, 0, 0.5, 0, 1 / 3], [0.5, 0, 0.5, 0, 0], [0, 0.5, 0, 0.5, 2 / 3], [0, 0.5, 0, 0.5, 0]])
    a, b = np.triu_indices(4, 1)
    ranked = sorted(zip(a.tolist(), b.tolist(), strict=True), key=lambda pair: -abs(expected[pair]))
    assert [(first, second) for first, second, _ in pairs] == ranked[:2]
    assert [r for *_, r in pairs] == pytest.approx([expected[pair] for pair in ranked[:2]])


def sparse_steps(*chosen: list[int]) -> LoadMatrix:
    return matrix_of(*chosen, num_experts=20)


def test_steps_of_few_tokens_take_the_short_way_to_the_same_coefficients(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = sparse_steps([0, 1], [0, 2], [3], [0, 0, 1], [19, 3, 3])
    assert products_by_cell(matrix, varying(matrix)) is not None
    short = correlation(matrix)
    monkeypatch.setattr("moeprof.analysis.routing.correlation.SPARSE", 0)
    np.testing.assert_allclose(short.values_EE, correlation(matrix).values_EE, atol=1e-12)
    np.testing.assert_allclose(short.values_MM, np.corrcoef(matrix.shares_EB[short.experts]), atol=1e-12)


def test_an_expert_that_hardly_varies_keeps_its_digits() -> None:
    matrix = sparse_steps(*[[0] * 999 + [1]] * 3, [0] * 1000 + [1], [0] * 998 + [1])
    assert products_by_cell(matrix, varying(matrix)) is None
    found = correlation(matrix)
    assert found.experts.tolist() == [0, 1]
    assert found.values_MM[0, 1] == pytest.approx(-1)


@given(drawn_rows())
def test_coefficients_are_numpys_where_they_exist_and_never_nan(rows: list[Row]) -> None:
    for matrix in load_matrices(trace_of(rows, num_experts=5, layers=("1", "3"))):
        found = correlation(matrix)
        assert np.isfinite(found.values_EE).all()
        shares = matrix.counts_EB / matrix.counts_EB.sum(axis=0)
        assert found.defined_E.tolist() == [len(set(row)) > 1 for row in shares.tolist()]
        if len(found.experts) > 1:
            np.testing.assert_allclose(found.values_MM, np.corrcoef(shares[found.experts]), atol=1e-12)
        assert sorted(clustered(found)) == found.experts.tolist()
