"""What holds for every policy and every trace, and that nothing beats MIN."""

from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.policies.cache import Access, AccessMode, Cache
from moeprof.policies.eviction.registry import EVICTION, make_eviction

from .batches import EVERY_POLICY, Batches, drawn_batches, sticky_batches

MODES: tuple[AccessMode, ...] = ("sequential", "batch")
policies, modes, slots = st.sampled_from(EVERY_POLICY), st.sampled_from(MODES), st.integers(1, 7)


def replay(policy: str, capacity: int, batches: Batches, access: AccessMode) -> Iterator[tuple[Cache, list[Access]]]:
    """The cache after every batch, and what the batch met."""
    cache = Cache(capacity, make_eviction(policy), future=[expert for batch in batches for expert in batch])
    for batch in batches:
        yield cache, cache.batch(batch, access)


def count(policy: str, capacity: int, batches: Batches, access: AccessMode) -> int:
    return sum(not one.hit for _, outcome in replay(policy, capacity, batches, access) for one in outcome)


@given(policies, slots, drawn_batches(), modes)
def test_a_resident_set_never_exceeds_its_slots(policy: str, capacity: int, batches: Batches, access: AccessMode) -> None:
    for cache, _ in replay(policy, capacity, batches, access):
        assert len(cache.resident) <= capacity


@given(policies, slots, drawn_batches(), modes)
def test_hits_and_victims_tell_who_is_resident(policy: str, capacity: int, batches: Batches, access: AccessMode) -> None:
    resident: set[int] = set()
    for cache, outcome in replay(policy, capacity, batches, access):
        for one in outcome:
            assert one.hit == (one.expert in resident)
            resident.add(one.expert)
            if access == "sequential":
                assert resident.issuperset(one.victims)
                resident.difference_update(one.victims)
                assert len(resident) <= capacity
        if access == "batch":
            victims = [victim for one in outcome for victim in one.victims]
            assert len(victims) == max(0, len(resident) - capacity)
            resident.difference_update(victims)
        assert cache.resident == resident


@given(st.sampled_from([name for name in EVERY_POLICY if not make_eviction(name).may_bypass]), slots, drawn_batches())
def test_what_was_just_used_is_resident(policy: str, capacity: int, batches: Batches) -> None:
    for batch, (cache, _) in zip(batches, replay(policy, capacity, batches, "sequential"), strict=True):
        assert batch[-1] in cache.resident
    for batch, (cache, _) in zip(batches, replay(policy, capacity, batches, "batch"), strict=True):
        assert cache.resident <= set(batch) if len(batch) >= capacity else cache.resident >= set(batch)


@given(policies, drawn_batches(), modes)
def test_as_many_slots_as_experts_leave_compulsory_misses_only(policy: str, batches: Batches, access: AccessMode) -> None:
    assert count(policy, 6, batches, access) == len({expert for batch in batches for expert in batch})


@given(st.sampled_from(list(EVICTION)), drawn_batches())
def test_where_every_batch_fits_the_inactive_leave_and_nobody_of_the_batch(tail: str, batches: Batches) -> None:
    capacity = max(map(len, batches))
    for _, outcome in replay(f"inactive-first+{tail}", capacity, batches, "sequential"):
        active = {one.expert for one in outcome}
        assert not any(active.intersection(one.victims) for one in outcome)


STACK = [name for name in EVERY_POLICY if make_eviction(name).one_pass]


@given(st.sampled_from(STACK), st.integers(1, 5), drawn_batches(), modes)
def test_a_larger_cache_of_a_stack_algorithm_holds_all_that_a_smaller_one_holds(
    policy: str, capacity: int, batches: Batches, access: AccessMode
) -> None:
    caches = zip(replay(policy, capacity, batches, access), replay(policy, capacity + 1, batches, access), strict=True)
    for (smaller, _), (larger, _) in caches:
        assert smaller.resident <= larger.resident


def test_fifo_is_no_stack_algorithm() -> None:
    belady = [[expert] for expert in (1, 2, 3, 4, 1, 2, 5, 1, 2, 3, 4, 5)]  # his own example of 1969
    assert count("fifo", 3, belady, "sequential") == 9
    assert count("fifo", 4, belady, "sequential") == 10


@given(st.sampled_from(EVERY_POLICY), slots, drawn_batches(), modes)
def test_nobody_beats_min(policy: str, capacity: int, batches: Batches, access: AccessMode) -> None:
    bound = "min-bypass" if make_eviction(policy).may_bypass else "min"
    assert count(bound, capacity, batches, access) <= count(policy, capacity, batches, access)


def fewest(capacity: int, batches: Batches, *, bypass: bool) -> int:
    """The fewest misses of any choice of what to keep after every batch, by trying them all."""
    misses_of: dict[frozenset[int], int] = {frozenset(): 0}
    for batch in map(frozenset, batches):
        after: dict[frozenset[int], int] = {}
        for resident, misses in misses_of.items():
            there = resident | batch
            for kept in map(frozenset, combinations(sorted(there), min(capacity, len(there)))):
                if bypass or kept <= batch or batch <= kept:
                    after[kept] = min(after.get(kept, 10**9), misses + len(batch - resident))
        misses_of = after
    return min(misses_of.values())


@given(drawn_batches(num_experts=4, longest=8), st.integers(1, 4), modes)
def test_min_has_the_fewest_misses_of_all_ways_to_keep_experts(batches: Batches, capacity: int, access: AccessMode) -> None:
    steps = batches if access == "batch" else [[expert] for batch in batches for expert in batch]
    assert count("min", capacity, batches, access) == fewest(capacity, steps, bypass=False)
    assert count("min-bypass", capacity, batches, access) == fewest(capacity, steps, bypass=True)


@pytest.mark.parametrize("seed", range(3))
def test_batch_aware_lies_between_min_and_the_papers_choice(seed: int) -> None:
    batches = sticky_batches(16, 8, 0.9, 500, seed)
    online = count("batch-aware", 6, batches, "sequential")
    assert count("min", 6, batches, "sequential") < online < count("inactive-first+lifo", 6, batches, "sequential")


@given(drawn_batches(num_experts=5, longest=1), st.integers(1, 5), st.integers(1, 8))
def test_batch_aware_is_min_where_one_batch_repeats(once: Batches, capacity: int, times: int) -> None:
    assert count("batch-aware", capacity, once * times, "sequential") == count("min", capacity, once * times, "sequential")
