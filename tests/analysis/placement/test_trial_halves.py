"""The first half of a trace places, the second half judges."""

import numpy as np
import pytest
from hypothesis import assume, given, settings

from moeprof.analysis.placement.trial import crossed, halved, part_of, whole
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import LoadMatrix, load_matrices, pooled
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of


def matrices_of(rows: list[Row]) -> list[LoadMatrix]:
    return load_matrices(trace_of(rows))


def test_the_earlier_steps_are_the_history_and_the_odd_one_is_tested() -> None:
    halves = halved(matrices_of(steps_of([0], [1, 1], [2], [3, 0], [1]))[0])
    assert halves is not None
    assert halves.history.counts_EB.T.tolist() == [[1, 0, 0, 0], [0, 2, 0, 0]]
    assert halves.test.counts_EB.T.tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]]
    assert halves.test.steps_B.tolist() == [2, 3, 4]


def test_a_single_step_has_no_halves() -> None:
    assert halved(matrices_of(steps_of([0, 1]))[0]) is None
    assert whole(matrices_of(steps_of([0, 1]))) is None


def test_batches_of_several_steps_are_cut_where_one_begins() -> None:
    (matrix,) = matrices_of(steps_of([0], [1], [2], [3], [0]))
    halves = halved(matrix, start=3)
    assert halves is not None
    assert (halves.history.steps_B.tolist(), halves.test.steps_B.tolist()) == ([0, 1, 2], [3, 4])
    assert halved(matrix, start=0) is None
    assert halved(matrix, start=5) is None


def test_every_domain_is_cut_at_its_own_step() -> None:
    rows = [
        *(Row(step, step, domain="prose") for step in range(2)),
        *(Row(step, step % 4, domain="code") for step in (2, 3, 4, 5)),
    ]
    found = whole(matrices_of(rows), {"prose": 0, "code": 3})
    assert found is not None  # all of prose is for the test, where it is not needed without a history
    assert (found.history.steps_B.tolist(), found.test.steps_B.tolist()) == ([2], [3, 4, 5])


@given(drawn_rows(layers=("1",)))
@settings(max_examples=60, deadline=None)
def test_parts_of_a_matrix_are_those_of_its_rows(rows: list[Row]) -> None:
    whole_rows = [row for row in rows if row.domain == "prose"]
    for matrix in load_matrices(trace_of(whole_rows, num_experts=5)):
        middle = matrix.num_steps // 2
        early = set(matrix.steps_B[:middle].tolist())
        for part, kept in ((part_of(matrix, 0, middle), early), (part_of(matrix, middle, matrix.num_steps), None)):
            wanted = [row for row in whole_rows if (row.step in early) == (kept is not None)]
            counts = np.zeros((5, part.num_steps), np.int64)
            for row in wanted:
                counts[row.expert, part.steps_B.tolist().index(row.step)] += 1
            assert part.counts_EB.tolist() == counts.tolist()
            assert part.dropped_KB.sum() == sum(row.dropped for row in wanted) == part.dropped_EB.sum()


def test_every_domain_gives_its_own_earlier_half() -> None:
    early, late = steps_of([0], [0], [1], [1], domain="prose"), steps_of([2], [2], [3], [3], domain="code")
    halves = whole(matrices_of([*early, *(row._replace(step=row.step + 4) for row in late)]))
    assert halves is not None
    assert halves.history.counts_E.tolist() == [2, 0, 2, 0]
    assert halves.test.counts_E.tolist() == [0, 2, 0, 2]


def test_domains_are_crossed_in_both_directions_and_with_themselves() -> None:
    found = crossed(matrices_of([*steps_of([0], [1], domain="prose"), *steps_of([2], [3], domain="code")]))
    assert list(found) == [("prose", "prose"), ("prose", "code"), ("code", "prose"), ("code", "code")]
    assert found["prose", "code"].history.counts_E.tolist() == [1, 0, 0, 0]
    assert found["prose", "code"].test.counts_E.tolist() == [0, 0, 0, 1]
    assert crossed(matrices_of(steps_of([0], [1]))) == {}


def test_totals_of_domains_are_crossed_with_others_only() -> None:
    totals = [matrix_of_counts("0", name, np.array(counts)[:, None], 2) for name, counts in (("a", [3, 1]), ("b", [0, 4]))]
    found = crossed(totals)
    assert list(found) == [("a", "b"), ("b", "a")]
    assert found["a", "b"].history.counts_E.tolist() == [3, 1]
    assert found["a", "b"].test.counts_E.tolist() == [0, 4]


@given(drawn_rows(layers=("1",)))
@settings(max_examples=30, deadline=None)
def test_a_matrix_is_made_again_from_its_counts(rows: list[Row]) -> None:
    assume(rows)
    one = pooled(load_matrices(trace_of(rows, num_experts=5)))
    again = matrix_of_counts("1", "", one.counts_EB, one.top_k)
    assert again.counts_EB.tolist() == one.counts_EB.tolist()
    assert again.max_share_B.tolist() == one.max_share_B.tolist()


def test_steps_without_a_choice_have_no_column() -> None:
    matrix = matrix_of_counts("0", "", np.array([[0, 3, 0], [0, 1, 2]]), 2)
    assert matrix.steps_B.tolist() == [1, 2]
    assert matrix.shares_EB.tolist() == [[0.75, 0.0], [0.25, 1.0]]
    assert matrix.tokens_B.tolist() == [2, 1]
    assert matrix.choices_B.tolist() == pytest.approx([4, 2])
