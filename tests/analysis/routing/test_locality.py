"""Locality agrees with sets and loops, and with what others measured on a real model."""

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given

from moeprof.analysis.routing.load_matrix import LoadMatrix, load_matrices
from moeprof.analysis.routing.locality import (
    jaccard,
    locality_metrics,
    locality_rows,
    median_distance,
    reuse_histogram,
    reuses,
    shared,
)
from moeprof.records.traces.formats import read_trace_file
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of


def shared_of(matrix: LoadMatrix) -> list[int]:
    return shared(*reuses(matrix), matrix.num_steps).tolist()


def jaccard_of(matrix: LoadMatrix) -> list[float]:
    return jaccard(np.array(shared_of(matrix)), matrix.active_B).tolist()


def test_two_of_three_experts_stay() -> None:
    (matrix,) = load_matrices(trace_of(steps_of([0, 1, 2], [1, 2], [1, 2, 3])))
    assert shared_of(matrix) == [2, 2]
    assert jaccard_of(matrix) == [2 / 3, 2 / 3]
    assert locality_metrics(matrix)["active_overlap"] == pytest.approx((1 + 2 / 3) / 2)


def test_disjoint_steps_share_nothing_and_no_expert_comes_back() -> None:
    (matrix,) = load_matrices(trace_of(steps_of([0], [1], [2])))
    assert locality_metrics(matrix) == {
        "active_jaccard": 0,
        "active_overlap": 0,
        "active_overlap_by_chance": 0.25,
    }


def test_reuse_distance_counts_the_steps_since_an_expert_was_last_active() -> None:
    (matrix,) = load_matrices(trace_of(steps_of([0, 1], [0], [0], [1])))
    assert reuse_histogram(matrix).tolist() == [0, 2, 0, 1]
    assert locality_metrics(matrix)["reuse_distance"] == 1


def test_a_gap_in_the_numbering_is_one_step_of_the_domain() -> None:
    rows = [Row(0, 1), Row(1, 2, domain="code"), Row(2, 1)]
    prose = next(matrix for matrix in load_matrices(trace_of(rows)) if matrix.domain == "prose")
    assert reuse_histogram(prose).tolist() == [0, 1]
    assert jaccard_of(prose) == [1]


def test_many_tokens_of_one_expert_are_one_activation() -> None:
    (matrix,) = load_matrices(trace_of(steps_of([3, 3, 3], [3, 3])))
    assert reuse_histogram(matrix).tolist() == [0, 1]


def test_a_single_step_has_no_locality() -> None:
    assert locality_rows(trace_of(steps_of([0, 1, 2]))) == []


def test_nothing_has_no_locality() -> None:
    assert locality_rows(trace_of([])) == []


@pytest.mark.parametrize(
    ("histogram", "median"),
    [([0], None), ([0, 1], 1), ([0, 1, 1], 1), ([0, 1, 2], 2), ([0, 0, 0, 5], 3), ([0, 2, 0, 2, 1], 3)],
)
def test_the_median_distance_is_the_lower_middle(histogram: list[int], median: float | None) -> None:
    assert median_distance(np.array(histogram)) == median


@given(drawn_rows())
def test_locality_is_that_of_the_active_sets(rows: list[Row]) -> None:
    for matrix in load_matrices(trace_of(rows, num_experts=5, layers=("1", "3"))):
        mine = [row for row in rows if (row.layer, row.domain) == (matrix.layer, matrix.domain)]
        active = [{row.expert for row in mine if row.step == step} for step in sorted({row.step for row in mine})]
        pairs = list(pairwise(active))
        assert shared_of(matrix) == [len(a & b) for a, b in pairs]
        assert jaccard_of(matrix) == [len(a & b) / len(a | b) for a, b in pairs]
        overlaps = [len(a & b) / len(b) for a, b in pairs]
        assert locality_metrics(matrix).get("active_overlap") == (pytest.approx(fmean(overlaps)) if overlaps else None)
        assert Counter(dict(enumerate(reuse_histogram(matrix).tolist()))) == distances_by_hand(active)
        assert all(math.isfinite(value) for value in locality_metrics(matrix).values())


def distances_by_hand(active: list[set[int]]) -> Counter[int]:
    """Steps since each expert was last active, with a dictionary."""
    found, last = Counter[int](), dict[int, int]()
    for step, experts in enumerate(active):
        for expert in experts:
            if expert in last:
                found[step - last[expert]] += 1
            last[expert] = step
    return found


def test_consecutive_decode_steps_of_gemma_overlap_as_others_measured(shared_data: Path) -> None:
    reference = json.loads((shared_data / "reference" / "prefetch.json").read_text())["gemma"]
    _, decode = read_trace_file(shared_data / "traces" / "gemma.route.csv").traces
    whole = {row.metric: row.value for row in locality_rows(decode) if row.layer == row.domain == ""}
    assert 100 * whole["active_overlap"] == pytest.approx(reference["temporal_prev_token"], abs=0.2)
    assert 100 * whole["active_overlap_by_chance"] == pytest.approx(reference["random"], abs=0.05)
