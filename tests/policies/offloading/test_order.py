"""Orders of loads: the timeline obeys slots, loader and computer; Johnson's rule and the search are as good as brute force says."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.policies.offloading.order import MAX_EXACT, JobTimes, LoadOrder, job_times, johnson, makespan, ordered
from moeprof.records.arrays import Floats, Ints


@st.composite
def drawn_jobs(draw: st.DrawFn, least: int = 0, most: int = 5) -> tuple[Floats, Floats]:
    """Load times from `least` and compute times of a few jobs."""
    number = draw(st.integers(1, most))
    times = [draw(st.lists(st.integers(low, 9), min_size=number, max_size=number)) for low in (least, 0)]
    return np.array(times[0], float), np.array(times[1], float)


slots_of_any_number = st.integers(1, 6)
orders = st.sampled_from(["index", "johnson", "exact"])


def fewest(load_J: Floats, compute_J: Floats, slots: int) -> float:
    """The smallest makespan of all orders, resident jobs anywhere."""
    return min(makespan(load_J, compute_J, np.array(order), slots) for order in permutations(range(len(load_J))))


def by_clock(load_J: Floats, compute_J: Floats, order_J: Ints, slots: int) -> float:
    """The makespan of whole times, unit by unit: what the loader and the computer do at each tick."""
    order, now = order_J.tolist(), 0
    to_load, to_compute = {job: int(load_J[job]) for job in order}, {job: int(compute_J[job]) for job in order}
    loading, loaded, finished = 0, 0, 0
    while True:
        while True:  # what takes no time
            before = (loading, loaded, finished)
            if loading == loaded < len(order) and loading - finished < slots:
                loading += 1
            if loaded < loading and not to_load[order[loaded]]:
                loaded += 1
            if finished < loaded and not to_compute[order[finished]]:
                finished += 1
            if before == (loading, loaded, finished):
                break
        if finished == len(order):
            return float(now)
        if loaded < loading:
            to_load[order[loaded]] -= 1
        if finished < loaded:
            to_compute[order[finished]] -= 1
        now += 1


@given(drawn_jobs(), slots_of_any_number, st.randoms(use_true_random=False))
def test_the_makespan_is_that_of_a_clock_that_ticks(jobs: tuple[Floats, Floats], slots: int, random: object) -> None:
    order_J = np.array(random.sample(range(len(jobs[0])), len(jobs[0])))
    assert makespan(*jobs, order_J, slots) == by_clock(*jobs, order_J, slots)


@given(drawn_jobs(), slots_of_any_number, orders)
def test_a_timeline_has_one_loader_one_computer_and_so_many_slots(
    jobs: tuple[Floats, Floats], slots: int, order: LoadOrder
) -> None:
    order_J = ordered(*jobs, slots, order)
    assert sorted(order_J.tolist()) == list(range(len(jobs[0])))
    times = JobTimes(*(one[order_J] for one in job_times(*jobs, order_J, slots)))
    assert (times.load_start_J[1:] >= times.load_end_J[:-1]).all()
    assert (times.compute_start_J[1:] >= times.compute_end_J[:-1]).all()
    assert (times.compute_start_J >= times.load_end_J).all()
    assert (times.load_start_J[slots:] >= times.compute_end_J[:-slots]).all()
    np.testing.assert_array_equal(times.load_end_J - times.load_start_J, jobs[0][order_J])
    np.testing.assert_array_equal(times.compute_end_J - times.compute_start_J, jobs[1][order_J])


@given(drawn_jobs(), slots_of_any_number, orders)
def test_nothing_is_faster_than_all_loads_or_all_computations(
    jobs: tuple[Floats, Floats], slots: int, order: LoadOrder
) -> None:
    assert makespan(*jobs, ordered(*jobs, slots, order), slots) >= max(jobs[0].sum(), jobs[1].sum())


@given(drawn_jobs(), orders)
def test_one_slot_overlaps_nothing(jobs: tuple[Floats, Floats], order: LoadOrder) -> None:
    assert makespan(*jobs, ordered(*jobs, 1, order), 1) == jobs[0].sum() + jobs[1].sum()


@given(drawn_jobs())
def test_johnsons_order_is_optimal_without_a_limit_of_slots(jobs: tuple[Floats, Floats]) -> None:
    unlimited = len(jobs[0])
    assert makespan(*jobs, johnson(*jobs), unlimited) == fewest(*jobs, unlimited)
    assert makespan(*jobs, ordered(*jobs, unlimited), unlimited) == fewest(*jobs, unlimited)


@given(drawn_jobs(most=6), slots_of_any_number)
def test_the_exact_order_is_as_good_as_any(jobs: tuple[Floats, Floats], slots: int) -> None:
    assert makespan(*jobs, ordered(*jobs, slots, "exact"), slots) == fewest(*jobs, slots)


def test_johnsons_rule_by_hand() -> None:
    assert johnson(np.array([3.0, 1, 2]), np.array([2.0, 4, 5])).tolist() == [1, 2, 0]
    assert johnson(np.array([2.0, 2, 2, 2]), np.array([1.0, 5, 5, 3])).tolist() == [1, 2, 3, 0]  # most tokens first


def test_resident_experts_come_first_in_every_order() -> None:
    load_J, compute_J = np.array([4.0, 0, 4, 0]), np.array([1.0, 3, 9, 2])
    assert ordered(load_J, compute_J, 2, "index").tolist() == [3, 1, 0, 2]
    assert ordered(load_J, compute_J, 2, "johnson").tolist() == [3, 1, 2, 0]


def test_a_timeline_of_two_slots_by_hand() -> None:
    times = job_times(np.array([2.0, 2, 2]), np.array([5.0, 1, 1]), np.array([0, 1, 2]), slots=2)
    assert times.load_start_J.tolist() == [0, 2, 7]  # the third load waits for the slot of the first job
    assert times.compute_end_J.tolist() == [7, 8, 10]


def random_layers(equal_loads: bool) -> list[tuple[Floats, Floats]]:
    """300 layers of 6 experts with 1 to 64 tokens; loads of equal length, or of int4 and 16 bits."""
    generator = np.random.default_rng(10)
    layers = []
    for _ in range(300):
        load_J = np.full(6, 24.0) if equal_loads else generator.choice([8.0, 32.0], 6)
        layers.append((load_J, generator.integers(1, 65, 6).astype(float)))
    return layers


def worse_than_exact(slots: int, equal_loads: bool) -> int:
    """In how many of the random layers Johnson's order is slower than the fastest."""
    return sum(
        makespan(*jobs, ordered(*jobs, slots), slots) > makespan(*jobs, ordered(*jobs, slots, "exact"), slots)
        for jobs in random_layers(equal_loads)
    )


def test_with_equal_loads_and_two_slots_most_tokens_first_is_always_the_fastest() -> None:
    assert worse_than_exact(slots=2, equal_loads=True) == 0


def test_with_three_slots_or_loads_of_two_lengths_johnsons_order_is_not_always_the_fastest() -> None:
    assert 0 < worse_than_exact(slots=3, equal_loads=True) < 150
    assert worse_than_exact(slots=2, equal_loads=False) > 0


@pytest.mark.parametrize("slots", [2, 3])
def test_johnsons_order_is_faster_than_index_order_in_the_mean(slots: int) -> None:
    by_order = {
        order: np.mean([makespan(*jobs, ordered(*jobs, slots, order), slots) for jobs in random_layers(equal_loads=True)])
        for order in ("exact", "johnson", "index")
    }
    assert by_order["exact"] <= by_order["johnson"] < by_order["index"]


def test_more_loads_than_can_be_compared_are_ordered_by_johnsons_rule() -> None:
    generator = np.random.default_rng(0)
    load_J, compute_J = generator.random(MAX_EXACT + 1), generator.random(MAX_EXACT + 1)
    assert ordered(load_J, compute_J, 2, "exact").tolist() == johnson(load_J, compute_J).tolist()


def test_no_jobs_take_no_time_and_no_slots_are_refused() -> None:
    none_J = np.array([])
    assert makespan(none_J, none_J, ordered(none_J, none_J, 2, "exact"), 2) == 0
    with pytest.raises(ValueError, match="at least one slot"):
        makespan(np.ones(1), np.ones(1), np.zeros(1, np.int64), 0)
