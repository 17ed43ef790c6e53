"""Hot sets, aged LFU and least stale miss as often as small simulators of each say, which share no code with the engines."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.batches import Batches, drawn_batches

from moeprof.analysis.caching.miss_counts import hits, misses
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import make_eviction
from tests.analysis.caching.engines import accesses_of

EXPERTS = 6
"""Experts of a layer; block 6 l + e is expert e of layer l."""


def hot_set(batches: Batches, capacity: int) -> list[bool]:
    popularity = Counter(block for batch in batches for block in batch)
    resident: set[int] = set()
    hits = []
    for block in (block for batch in batches for block in batch):
        hits.append(block in resident)
        resident.add(block)
        resident = set(sorted(resident, key=lambda one: (popularity[one], one))[-capacity:])
    return hits


def pinned_lru(batches: Batches, capacity: int) -> list[bool]:
    popularity = Counter(block for batch in batches for block in batch)
    pinned = set(sorted(popularity, key=lambda one: (-popularity[one], one))[: capacity // 2])
    loaded: set[int] = set()
    others: list[int] = []
    hits = []
    for block in (block for batch in batches for block in batch):
        hits.append(block in loaded or block in others)
        if block in pinned:
            loaded.add(block)
        else:
            others = [*(one for one in others if one != block), block]
        others = others[max(0, len(loaded) + len(others) - capacity) :]
    return hits


def lfu_aged(batches: Batches, capacity: int) -> list[bool]:
    key: dict[int, tuple[int, int]] = {}
    frequency: dict[int, int] = {}
    age, hits = 0, []
    for now, block in enumerate(block for batch in batches for block in batch):
        hits.append(block in key)
        frequency[block] = frequency[block] + 1 if block in key else 1
        key[block] = frequency[block] + age, now
        if len(key) > capacity:
            victim = min((one for one in key if one != block), default=block, key=lambda one: key[one])
            age = max(age, key.pop(victim)[0])
    return hits


def least_stale(batches: Batches, capacity: int) -> list[bool]:
    used_at: dict[int, int] = {}
    last_batch: dict[int, tuple[int, set[int]]] = {}
    resident: set[int] = set()
    now, hits = 0, []
    for number, batch in enumerate(batches):
        last_batch[batch[0] // EXPERTS] = number, set()
        for block in batch:
            hits.append(block in resident)
            resident.add(block)
            used_at[block], now = now, now + 1
            last_batch[block // EXPERTS][1].add(block)
            if len(resident) > capacity:

                def rank(one: int, batch: list[int] = batch) -> tuple[bool, bool, int, int]:
                    run, fresh = last_batch[one // EXPERTS]
                    return one in batch, one in fresh, -run if one in fresh else 0, used_at[one]

                resident.remove(min(resident - {block} or {block}, key=rank))
    return hits


SIMULATORS: dict[str, Callable[[Batches, int], list[bool]]] = {
    "hot-set": hot_set,
    "pinned-lru": pinned_lru,
    "lfu-aged": lfu_aged,
    "least-stale": least_stale,
}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(SIMULATORS)), drawn_batches(EXPERTS), st.data(), st.integers(1, 9))
def test_a_cache_of_several_layers_hits_as_the_simulator_does(
    policy: str, own: Batches, data: st.DataObject, capacity: int
) -> None:
    layers = data.draw(st.lists(st.integers(0, 2), min_size=len(own), max_size=len(own)))
    batches = [[EXPERTS * layer + expert for expert in batch] for layer, batch in zip(layers, own, strict=True)]
    accesses = replace(accesses_of(batches), layers_N=np.repeat(np.array(layers, np.int64), [len(batch) for batch in batches]))
    expected = SIMULATORS[policy](batches, capacity)
    assert hits(accesses, policy, capacity).tolist() == expected
    assert misses(accesses, policy, [capacity]).sum() == expected.count(False)
    blocks = [block for batch in batches for block in batch]
    cache = Cache(capacity, make_eviction(policy), future=blocks, layers=[block // EXPERTS for block in range(3 * EXPERTS)])
    assert [one.hit for batch in batches for one in cache.batch(batch)] == expected


@pytest.mark.parametrize(
    ("policy", "misses_of_two_slots"),
    [
        ("lru", 12),  # a cyclic scan of three experts
        ("hot-set", 6),  # two experts are loaded once, the third one is never kept: 2 + 4
        ("pinned-lru", 9),  # one expert is loaded once, the two others take the other slot in turn: 1 + 4 + 4
    ],
)
def test_a_hot_set_withstands_a_scan(policy: str, misses_of_two_slots: int) -> None:
    scan = accesses_of([[0], [1], [2]] * 4)
    assert misses(scan, policy, [2]).tolist() == [[misses_of_two_slots]]


def test_an_expert_that_was_hot_long_ago_leaves_an_aged_cache() -> None:
    hot, pairs = [[0]] * 10, [[2 * pair + block] for pair in range(1, 13) for block in (0, 1) * 3]
    assert misses(accesses_of(hot + pairs), "lfu", [2])[0, 0] == 1 + 72, "no other expert is used ten times"
    assert misses(accesses_of(hot + pairs), "lfu-aged", [2])[0, 0] == 1 + 44, "expert 0 leaves when the cache has aged by ten"


def test_what_the_next_layers_need_is_not_evicted_as_the_least_recently_used() -> None:
    chat = [[0, 1], [6, 7], [12, 13]] * 8  # three layers, two experts each, always the same
    accesses = replace(accesses_of(chat), layers_N=np.repeat(np.array([0, 1, 2] * 8), 2))
    assert misses(accesses, "lru", [5])[0, 0] == 48, "a scan over six experts with five slots"
    assert misses(accesses, "least-stale", [5])[0, 0] == 16
    assert misses(accesses, "min", [5])[0, 0] == 14
