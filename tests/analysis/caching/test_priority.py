"""A weighted sum orders blocks as a policy's criteria do."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.batches import EVERY_POLICY

from moeprof.analysis.caching.priority import PROTECTION, TRAITS, largest_traits, next_uses, weights
from moeprof.policies.eviction.eviction import Eviction, ExpertHistory
from moeprof.policies.eviction.registry import make_eviction

NUM_ACCESSES, NUM_BLOCKS, LONGEST = 1000, 64, 8
LARGEST_F = largest_traits(NUM_ACCESSES, NUM_BLOCKS, LONGEST)


def known_blocks(eviction: Eviction) -> Iterator[tuple[ExpertHistory, int]]:
    """Histories that a trace of that length may give, and ids, at both ends of the traits that the policy compares."""
    names = [criterion.trait for criterion in eviction.order]
    ends = [(0, 1, most - 1, most) for name, most in zip(TRAITS, LARGEST_F.tolist(), strict=False) if name in names]
    for values in product(*ends):
        known = dict(zip((name for name in TRAITS if name in names), values, strict=True))
        yield from ((ExpertHistory(**known), block) for block in (0, 1, NUM_BLOCKS - 1))


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_the_block_with_the_lower_sum_is_evicted_first(policy: str) -> None:
    eviction = make_eviction(policy)
    weights_F = weights(eviction, LARGEST_F)
    weighed_of = {
        (*eviction.priority(history), block): int(weights_F @ np.array([*(getattr(history, name) for name in TRAITS), block]))
        for history, block in known_blocks(eviction)
    }
    in_order = [weighed_of[priority] for priority in sorted(weighed_of)]
    assert in_order == sorted(set(in_order)), "no two priorities are equal"
    assert max(map(abs, in_order)) < PROTECTION // 2


def test_a_billion_accesses_fit_into_a_priority_unless_counts_and_times_multiply() -> None:
    for policy in ("lru", "min", "inactive-first+lifo", "batch-aware"):
        weights(make_eviction(policy), largest_traits(10**9, 512, 512))
    weights(make_eviction("inactive-first+lfu"), largest_traits(30_000_000, 512, 512))
    with pytest.raises(OverflowError, match="lfu: priorities of a trace this long do not fit in 64 bits"):
        weights(make_eviction("lfu"), largest_traits(10**9, 512, 512))


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), max_size=20))
def test_next_uses_are_where_the_rest_of_the_trace_has_the_block_first(blocks: list[int]) -> None:
    expected = [blocks.index(block, now + 1) if block in blocks[now + 1 :] else len(blocks) for now, block in enumerate(blocks)]
    assert next_uses(np.array(blocks, np.int64), 5).tolist() == expected
