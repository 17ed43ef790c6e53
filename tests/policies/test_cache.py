"""The state machine that every replay and every expert store drives: who hits, who is loaded, who leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from moeprof.policies.cache import Access, AccessMode, Cache
from moeprof.policies.eviction.registry import make_eviction


def replay(policy: str, capacity: int, batches: list[list[int]], access: AccessMode = "sequential") -> list[Access]:
    """Every access of `batches` in a cold cache, the future known to policies that need it."""
    cache = Cache(capacity, make_eviction(policy), future=[expert for batch in batches for expert in batch])
    return [one for batch in batches for one in cache.batch(batch, access)]


def misses(outcome: list[Access]) -> int:
    return sum(not one.hit for one in outcome)


def test_lifo_evicts_2_where_the_paper_says_so() -> None:
    assert Cache(2, make_eviction("lifo")).batch([1, 2, 3]) == [
        Access(1, hit=False),
        Access(2, hit=False),
        Access(3, hit=False, victims=(2,)),
    ]


def test_lifo_goes_by_loading_and_mru_by_use() -> None:
    uses = [[1], [2], [1], [3]]
    assert replay("lifo", 2, uses)[-1].victim == 2
    assert replay("mru", 2, uses)[-1].victim == 1


def test_fifo_forgets_that_the_first_was_used_again() -> None:
    uses = [[1], [2], [1], [3]]
    assert replay("fifo", 2, uses)[-1].victim == 1
    assert replay("lru", 2, uses)[-1].victim == 2


def test_lfu_keeps_counts_over_eviction_and_its_reset_does_not() -> None:
    uses = [[1]] * 4 + [[2]] * 3 + [[3], [2], [2], [4]]
    assert [one.victim for one in replay("lfu", 2, uses)[7:]] == [2, 3, -1, 1], "1 was used 4 times, 2 five times"
    assert [one.victim for one in replay("lfu-reset", 2, uses)[7:]] == [2, 3, -1, 2], "2 was used twice since it came back"


def test_lfu_ties_go_to_the_least_recently_used() -> None:
    assert replay("lfu", 2, [[2], [1], [3]])[-1].victim == 2


def test_min_evicts_whom_it_needs_last() -> None:
    assert [one.victim for one in replay("min", 2, [[0], [1], [2], [0], [1]])] == [-1, -1, 1, -1, 0]


def test_bypass_uses_an_expert_without_keeping_it() -> None:
    outcome = replay("min-bypass", 1, [[0], [1], [0]])
    assert outcome == [Access(0, hit=False), Access(1, hit=False, victims=(1,)), Access(0, hit=True)]


def test_who_the_batch_does_not_use_leaves_before_who_it_uses() -> None:
    uses = [[0, 1, 2], [2, 3]]  # LIFO alone would evict 2, the last that was loaded
    assert replay("lifo", 3, uses)[-1].victim == 2
    assert replay("inactive-first+lifo", 3, uses)[-1].victim == 1
    assert replay("inactive-first+fifo", 3, uses)[-1].victim == 0


def test_batch_aware_takes_the_inactive_least_recently_used_then_the_farthest_turn() -> None:
    assert replay("batch-aware", 3, [[0, 1, 2], [2, 3]])[-1].victim == 0
    # Nobody is inactive: 2 has its turn in this batch, 1 had it just now, and 0 comes first in the next.
    assert replay("batch-aware", 2, [[0, 1], [0, 1, 2]])[-1].victim == 1
    assert [one.hit for one in replay("batch-aware", 2, [[1, 2, 3]] * 3)[3:]] == [True, False, True, False, True, False]


def test_a_batch_is_admitted_as_a_whole_before_anybody_leaves() -> None:
    together = replay("lru", 2, [[0, 1], [2, 0]], "batch")
    assert [one.hit for one in together] == [False, False, False, True]
    assert together[2].victim == 1
    assert [one.hit for one in replay("lru", 2, [[0, 1], [2, 0]])] == [False, False, False, False]


def test_a_batch_larger_than_the_slots_fits_only_while_it_runs() -> None:
    cache = Cache(2, make_eviction("lru"))
    outcome = cache.batch([0, 1, 2], "batch")
    assert [one.victims for one in outcome] == [(), (), (0,)]
    assert cache.resident == {1, 2}


def test_free_slots_go_to_the_first_misses_of_a_batch() -> None:
    cache = Cache(3, make_eviction("fifo"))
    cache.batch([0, 1], "batch")
    assert [one.victim for one in cache.batch([2, 3, 4], "batch")] == [-1, 0, 1]


def test_large_experts_push_out_as_many_small_ones_as_it_takes() -> None:
    cache = Cache(10, make_eviction("lru"), sizes={0: 3, 1: 3, 2: 3, 3: 7, 4: 11})
    cache.batch([0, 1, 2])
    assert cache.batch([3]) == [Access(3, hit=False, victims=(0, 1))]
    assert cache.resident == {2, 3}
    assert cache.batch([4]) == [Access(4, hit=False, victims=(2, 3, 4))], "what is larger than the cache stays nowhere"
    assert cache.resident == set()


def test_what_was_evicted_is_written_on_a_later_miss_however_many_left() -> None:
    cache = Cache(8, make_eviction("fifo"), sizes=[1, 1, 1, 1, 4, 4])
    cache.batch([0, 1, 2, 3], "batch")
    assert [one.victims for one in cache.batch([4, 5], "batch")] == [(0,), (1, 2, 3)]


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_cache_has_a_slot(capacity: int) -> None:
    with pytest.raises(ValueError, match=f"a capacity of at least 1, not {capacity}"):
        Cache(capacity, make_eviction("lru"))


def test_min_needs_the_future_and_holds_the_trace_to_it() -> None:
    with pytest.raises(ValueError, match="min needs the future accesses"):
        Cache(1, make_eviction("min"))
    cache = Cache(1, make_eviction("min"), future=[0, 1])
    with pytest.raises(ValueError, match="access 0 to expert 1 differs from the given future"):
        cache.batch([1])
    cache = Cache(1, make_eviction("min"), future=[0])
    cache.batch([0])
    with pytest.raises(ValueError, match="access 1 to expert 0 differs from the given future"):
        cache.batch([0])


NAMES = {"lru": ["lru"], "belady": ["min", "min-bypass"], "belady (may bypass)": ["min-bypass"], "belady_forced_admit": ["min"]}


def test_cases_that_tell_replay_semantics_apart(shared_data: Path) -> None:
    cases: list[dict[str, Any]] = json.loads((shared_data / "reference/conformance_moe_cache_eval.json").read_text())["cases"]
    assert len(cases) == 10
    for case in cases:
        access: AccessMode = "batch" if "event-atomic" in case["policy"] else "sequential"
        name = case["policy"].removesuffix(" event-atomic").removesuffix(" sequential")
        for policy in NAMES[name]:
            outcome = replay(policy, case["capacity"], case["events"], access)
            used = {one.expert for one in outcome}
            measured = {
                "misses": misses(outcome),
                "hits": len(outcome) - misses(outcome),
                "collision_misses": misses(outcome) - len(used),
                "insertions": sum(not one.hit and one.expert not in one.victims for one in outcome),
                "evictions": sum(len(set(one.victims) - {one.expert}) for one in outcome),
            }
            told = {key: value for key, value in case.items() if key in measured}
            assert told == {key: measured[key] for key in told}, (case, policy)
