"""What is known of a placement before it is deployed: by hand, for two ranks and four experts."""

import pytest

from moeprof.analysis.placement.deployed_rows import from_step, placed_rows, trial_over_ranks
from moeprof.records.placement import Placement
from tests.analysis.traces import metrics_of, steps_of, trace_of, value_at

RANKS = [trace_of(steps_of([0], [1], [0], [1])), trace_of(steps_of([0, 2], [1, 3], [0, 2], [1, 3]))]
"""Of three choices a step, two go to rank 0 under contiguous placement, to experts 0 and 1 in turn."""

SPREAD = Placement(4, {"1": ((0, 3), (1, 2))})
COPIED = Placement(4, {"1": ((0, 1, 2), (0, 1, 3))})


def test_gain_floor_and_moves_by_hand() -> None:
    rows = list(placed_rows(RANKS[0].header, trial_over_ranks(RANKS, {"prose": 2}), SPREAD))
    assert value_at(rows, "load_gain") == pytest.approx(0)  # two of three, whichever rank has the hot expert
    assert value_at(rows, "avg_max_load_floor") == value_at(rows, "max_load_floor", layer="1") == pytest.approx(2 / 3)
    assert (value_at(rows, "history_steps"), value_at(rows, "test_steps"), value_at(rows, "ideal_load")) == (2, 2, 0.5)
    assert (value_at(rows, "moved_experts"), value_at(rows, "moved_experts", layer="1")) == (2, 2)
    assert value_at(rows, "device_slots") == 2


def test_copies_share_what_each_rank_sends() -> None:
    """In step 2 each rank's single choice of expert 0 goes to copy (2 + rank) mod 2, and expert 2 is on rank 0: 2 against 1."""
    rows = list(placed_rows(RANKS[0].header, trial_over_ranks(RANKS, {"prose": 2}), COPIED))
    assert value_at(rows, "load_gain") == pytest.approx(0)
    assert value_at(rows, "moved_experts") == 3  # expert 2 to rank 0, experts 0 and 1 to rank 1
    assert value_at(rows, "device_slots") == 3


def test_nothing_to_judge_on_is_nothing_told() -> None:
    assert list(placed_rows(RANKS[0].header, trial_over_ranks(RANKS, {"prose": 0}), SPREAD)) == []


def test_rows_of_test_steps_are_kept_domain_by_domain() -> None:
    rows = [*steps_of([0], [1]), *(row._replace(step=row.step + 2, domain="code") for row in steps_of([2], [3]))]
    assert from_step(trace_of(rows), {"prose": 1, "code": 2}).column("expert").tolist() == [1, 2, 3]
    assert len(from_step(trace_of([]), {})) == 0


def test_no_metric_is_told_twice() -> None:
    rows = list(placed_rows(RANKS[0].header, trial_over_ranks(RANKS, {"prose": 2}), SPREAD))
    assert len({row.address for row in rows}) == len(rows)
    assert "load_gain_low" in metrics_of(rows)
