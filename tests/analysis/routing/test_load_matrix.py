"""The load matrix agrees with counting by hand, whatever the order, the domains and the gaps of a trace."""

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.routing.load_matrix import load_matrices, numbered, pooled
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of

LAYERS = ("1", "3")


def test_columns_are_the_steps_in_which_the_layer_had_a_token() -> None:
    (matrix,) = load_matrices(trace_of([Row(7, 2), Row(3, 0), Row(7, 2, sequence=1), Row(3, 1, sequence=1)]))
    assert matrix.steps_B.tolist() == [3, 7]
    assert matrix.counts_EB.tolist() == [[1, 0], [1, 0], [0, 2], [0, 0]]
    assert matrix.tokens_B.tolist() == [2, 2]
    assert matrix.active_B.tolist() == [2, 1]
    assert matrix.inactive_B.tolist() == [2, 3]
    assert matrix.counts_E.tolist() == [1, 1, 2, 0]
    assert matrix.dead_E.tolist() == [False, False, False, True]
    assert matrix.max_share_B.tolist() == [0.5, 1.0]


def test_the_bound_on_active_experts_is_top_k_times_tokens_or_all_of_them() -> None:
    rows = [Row(step, expert, slot=expert % 2, sequence=token) for step, tokens in ((0, 1), (1, 3)) for token in range(tokens)
            for expert in (0, 1)]  # fmt: skip
    (matrix,) = load_matrices(trace_of(rows))
    assert matrix.active_bound_B.tolist() == [2, 4]


def test_a_token_that_loses_both_choices_is_one_lost_token() -> None:
    rows = [
        Row(0, 0, 0, dropped=True),
        Row(0, 1, 1, dropped=True),
        Row(0, 0, 0, sequence=1),
        Row(0, 1, 1, sequence=1, dropped=True),
    ]
    (matrix,) = load_matrices(trace_of(rows))
    assert matrix.dropped_tokens_B.tolist() == [2]
    assert matrix.dropped_KB.tolist() == [[1], [2]]
    assert matrix.dropped_EB.tolist() == [[1], [2], [0], [0]]


def test_first_choices_alone_are_a_top_1_matrix() -> None:
    rows = [Row(0, 3, 0), Row(0, 1, 1), Row(0, 3, 0, sequence=1), Row(0, 2, 1, sequence=1)]
    (matrix,) = load_matrices(trace_of(rows), slot=0)
    assert matrix.counts_E.tolist() == [0, 0, 0, 2]
    assert (matrix.top_k, matrix.num_tokens) == (1, 2)


def test_layers_come_in_the_headers_order_and_one_without_rows_has_no_matrix() -> None:
    trace = trace_of([*steps_of([0], layer="3"), *steps_of([1], layer="1")], layers=("1", "2", "3"))
    assert [matrix.layer for matrix in load_matrices(trace)] == ["1", "3"]


def test_a_trace_without_rows_has_no_matrices() -> None:
    assert load_matrices(trace_of([])) == []


def test_only_matrices_of_one_layer_can_be_pooled() -> None:
    matrices = load_matrices(trace_of([*steps_of([0]), *steps_of([1], layer="3")], layers=LAYERS))
    with pytest.raises(ValueError, match="one layer"):
        pooled(matrices)


@given(drawn_rows(), st.randoms(use_true_random=False))
def test_every_count_is_the_one_found_row_by_row(rows: list[Row], random: Random) -> None:
    random.shuffle(rows)
    matrices = load_matrices(trace_of(rows, num_experts=5, layers=LAYERS))
    assert {(m.layer, m.domain) for m in matrices} == {(row.layer, row.domain) for row in rows}
    for matrix in matrices:
        mine = [row for row in rows if (row.layer, row.domain) == (matrix.layer, matrix.domain)]
        assert matrix.steps_B.tolist() == sorted({row.step for row in mine})
        counts, dropped = Counter((r.expert, r.step) for r in mine), Counter((r.expert, r.step) for r in mine if r.dropped)
        tokens = {(row.step, row.sequence, row.position) for row in mine}
        lost = {(row.step, row.sequence, row.position) for row in mine if row.dropped}
        for column, step in enumerate(matrix.steps_B.tolist()):
            assert matrix.counts_EB[:, column].tolist() == [counts[expert, step] for expert in range(5)]
            assert matrix.dropped_EB[:, column].tolist() == [dropped[expert, step] for expert in range(5)]
            assert matrix.tokens_B[column] == sum(token[0] == step for token in tokens)
            assert matrix.dropped_tokens_B[column] == sum(token[0] == step for token in lost)
        np.testing.assert_allclose(matrix.shares_EB.sum(axis=0), 1)
        assert (matrix.active_B <= matrix.active_bound_B).all()


@given(drawn_rows())
def test_pooling_domains_is_the_matrix_of_the_trace_that_knows_none(rows: list[Row]) -> None:
    apart = load_matrices(trace_of(rows, num_experts=5, layers=LAYERS))
    for whole in load_matrices(trace_of([row._replace(domain="") for row in rows], num_experts=5, layers=LAYERS)):
        merged = pooled([matrix for matrix in apart if matrix.layer == whole.layer])
        for name in ("counts_EB", "dropped_EB", "dropped_KB", "dropped_tokens_B", "tokens_B", "steps_B"):
            np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
        assert (merged.domain, merged.top_k) == ("", whole.top_k)


@given(st.lists(st.integers(0, 40) | st.integers(-5, 2**40), max_size=12))
def test_keys_are_numbered_as_if_they_were_sorted(keys: list[int]) -> None:
    known, place = numbered(np.array(keys, np.int64))
    assert known.tolist() == sorted(set(keys))
    assert [known[at] for at in place] == keys
