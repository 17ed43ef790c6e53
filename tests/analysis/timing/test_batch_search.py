"""The search for the best batch: doubling, halving the last gap, a look to both sides, and nothing measured twice."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.analysis.timing.batch_search import Point, dips, search


class Machine:
    """Throughput by batch, and batches from `limit` on do not fit; it keeps what it was asked, in order."""

    def __init__(self, throughput: Callable[[int], float], limit: int = 2**30, why: str = "over the budget") -> None:
        self.throughput, self.limit, self.why = throughput, limit, why
        self.tried: list[int] = []
        self.weighed: list[int] = []

    def __call__(self, batch: int) -> Point:
        self.tried.append(batch)
        if batch >= self.limit:
            return Point(batch, why=self.why)
        return Point(batch, self.throughput(batch), 1000 + batch)

    def weigh(self, batch: int) -> Point:
        """Only its memory."""
        self.weighed.append(batch)
        return Point(batch, None, 1000 + batch, weighed=True) if batch < self.limit else Point(batch, why=self.why)


def test_it_doubles_from_one_and_halves_the_gap_where_memory_ends() -> None:
    machine = Machine(float, limit=12)
    found = search(machine)
    assert machine.tried == [1, 2, 4, 8, 16, 12, 10, 11]
    assert found.ended == "memory"
    assert found.max_batch == 11
    assert found.best == Point(11, 11.0, 1011)


def test_points_come_by_batch_whatever_the_order_of_trying() -> None:
    found = search(Machine(float, limit=12))
    assert [point.batch for point in found.points] == [1, 2, 4, 8, 10, 11, 12, 16]
    assert [point.batch for point in found.points if point.fits] == [1, 2, 4, 8, 10, 11]
    assert {point.why for point in found.points if not point.fits} == {"over the budget"}


@given(st.integers(1, 200_000))
def test_the_largest_batch_fits_and_the_true_one_is_within_an_eighth_of_it(largest: int) -> None:
    found = search(Machine(float, limit=largest + 1))
    assert found.max_batch <= largest < found.max_batch + max(1, found.max_batch // 8)
    assert found.ended == "memory"


@given(st.lists(st.floats(0.5, 100), min_size=24, max_size=24), st.integers(1, 3000))
def test_whatever_the_speeds_nothing_is_tried_twice_and_nothing_claimed_that_does_not_fit(
    speeds: list[float], limit: int
) -> None:
    machine = Machine(lambda batch: speeds[batch % len(speeds)], limit)
    found = search(machine)
    assert len(machine.tried) == len(set(machine.tried)) == len(found.points)
    assert found.max_batch < limit
    assert found.max_batch == max((batch for batch in machine.tried if batch < limit), default=0)
    if limit > 1:
        assert found.best is not None
        assert found.best.throughput == max(machine.throughput(batch) for batch in machine.tried if batch < limit)


def test_a_plateau_ends_it_after_two_points_that_bring_nothing() -> None:
    machine = Machine(lambda batch: float(min(batch, 8)))
    found = search(machine)
    assert machine.tried[:6] == [1, 2, 4, 8, 16, 32]
    assert found.ended == "throughput"
    assert found.max_batch == 32  # the largest that was seen to fit
    assert found.best is not None
    assert found.best.batch == 8


@pytest.mark.parametrize(("growth", "last"), [(1.005, 4), (1.05, 2**20)])
def test_a_rise_within_the_noise_is_a_plateau_and_a_slow_rise_is_none(growth: float, last: int) -> None:
    machine = Machine(lambda batch: growth ** (batch.bit_length() - 1))
    search(machine)
    assert max(batch for batch in machine.tried if batch & (batch - 1) == 0) == last


def test_one_slow_point_alone_does_not_end_it() -> None:
    machine = Machine(lambda batch: 1.0 if batch == 4 else float(batch), limit=100)
    found = search(machine)
    assert found.ended == "memory"
    assert found.best is not None
    assert found.best.batch == found.max_batch > 90


def test_it_looks_to_both_sides_of_the_best() -> None:
    machine = Machine(lambda batch: 1000 / (abs(batch - 12) + 10))
    found = search(machine)
    assert machine.tried == [1, 2, 4, 8, 16, 32, 6, 12]
    assert found.best == Point(12, 100.0, 1012)


def test_a_machine_without_room_for_one_sequence_has_no_best_batch() -> None:
    machine = Machine(float, limit=1)
    found = search(machine)
    assert machine.tried == [1]
    assert (found.best, found.max_batch, found.ended) == (None, 0, "memory")


def test_memory_that_runs_out_on_the_way_ends_it_like_a_budget_and_the_reason_is_kept() -> None:
    machine = Machine(float, limit=21, why="out of memory")
    found = search(machine)
    assert machine.tried == [1, 2, 4, 8, 16, 32, 24, 20, 22, 15]
    assert found.max_batch == 20
    assert [point.batch for point in found.points if point.why == "out of memory"] == [22, 24, 32]


def test_beyond_a_batch_that_does_not_fit_none_is_tried() -> None:
    """Even where the throughput is best just below it."""
    machine = Machine(lambda batch: 100.0 - batch, limit=3)
    search(machine)
    assert machine.tried == [1, 2, 4, 3]


def test_a_search_may_be_bounded() -> None:
    machine = Machine(float)
    found = search(machine, largest=20)
    assert machine.tried == [1, 2, 4, 8, 16, 12]
    assert found.ended == "largest"
    assert found.max_batch == 16


def test_where_speed_ends_it_first_batches_go_on_growing_untimed_until_memory_ends_them() -> None:
    machine = Machine(lambda batch: float(min(batch, 8)), limit=100)
    found = search(machine, machine.weigh)
    assert machine.tried == [1, 2, 4, 8, 16, 32, 6, 12]
    assert machine.weighed == [64, 128, 96, 112, 104]
    assert (found.max_batch, found.ended) == (96, "memory")
    assert found.best == Point(8, 8.0, 1008)
    assert [point.batch for point in found.points if point.weighed] == [64, 96]


def test_nobody_weighs_more_than_sixteen_times_the_best_batch() -> None:
    machine = Machine(lambda batch: float(min(batch, 8)))
    found = search(machine, machine.weigh)
    assert machine.weighed == [64, 128]
    assert (found.max_batch, found.ended) == (128, "throughput")


@given(st.integers(1, 300), st.data())
def test_the_largest_batch_does_not_depend_on_how_speed_behaves(plateau: int, data: st.DataObject) -> None:
    """Within sixteen times the best one."""
    largest = data.draw(st.integers(1, 16 * plateau - 1))
    slow, fast = Machine(lambda batch: float(min(batch, plateau)), largest + 1), Machine(float, largest + 1)
    found = search(slow, slow.weigh)
    assert found.max_batch == search(fast, fast.weigh).max_batch
    assert found.ended == "memory"
    assert not fast.weighed
    tried = slow.tried + slow.weighed
    assert len(tried) == len(set(tried)) == len(found.points)


def test_what_was_only_weighed_is_never_the_best() -> None:
    machine = Machine(lambda batch: 5.0, limit=9)
    found = search(machine, machine.weigh)
    assert machine.weighed == [8, 16, 12, 10, 9]
    assert found.best is not None
    assert found.best.batch == 1


class Unsteady(Machine):
    """A machine that is slow for the first measurement of some batches only."""

    def __init__(self, slow: set[int], limit: int = 2**30) -> None:
        super().__init__(lambda batch: self.rate(batch), limit)
        self.slow = slow

    def rate(self, batch: int) -> float:
        disturbed = batch in self.slow and self.tried.count(batch) == 1
        return float(min(batch, 64)) * (0.2 if disturbed else 1)


def test_a_fall_that_is_gone_when_it_is_measured_again_does_not_end_the_search() -> None:
    disturbed = {8, 16}
    found = search(Unsteady(disturbed)).best
    assert found is not None
    assert found.batch == 6  # half as much again as 4, at which it seemed to end
    machine = Unsteady(disturbed)
    found = search(machine, again=machine).best
    assert found is not None
    assert found.batch == 64
    assert [machine.tried.count(batch) for batch in (4, 8, 16)] == [2, 2, 2]


def test_a_dip_is_measured_again_with_the_best_batch_and_its_neighbours() -> None:
    machine = Unsteady({16}, limit=65)
    found = search(machine, again=machine)
    assert dips([(point.batch, point.throughput or 0) for point in found.points if point.fits]) == []
    assert {batch for batch in machine.tried if machine.tried.count(batch) == 2} == {16, 48, 64}


def test_a_dip_that_stays_is_measured_a_bounded_number_of_times() -> None:
    machine = Machine(lambda batch: 1.0 if batch == 4 else float(batch), limit=20)
    search(machine, again=machine)
    assert machine.tried.count(4) == 3


def test_a_curve_that_rises_and_falls_has_no_dips_and_small_ones_do_not_count() -> None:
    assert dips([]) == []
    assert dips([(1, 5), (2, 9), (4, 9.5), (8, 7), (16, 3)]) == []
    assert dips([(1, 10), (2, 9.1), (4, 11)]) == []
    assert dips([(1, 10), (2, 8), (4, 3), (8, 12), (16, 1)]) == [(2, pytest.approx(0.2)), (4, pytest.approx(0.7))]
