"""The fast engines count what the plain cache counts: every policy, mode and size of blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies.batches import EVERY_POLICY, Batches, drawn_batches

from moeprof.analysis.caching.miss_counts import Accesses, compulsory, hits, misses, misses_in_bytes
from moeprof.policies.cache import AccessMode
from moeprof.policies.eviction.registry import DEFAULT, make_eviction
from tests.analysis.caching.engines import accesses_of, plain_hits

policies = st.sampled_from(EVERY_POLICY)
modes: st.SearchStrategy[AccessMode] = st.sampled_from(["sequential", "batch"])


@settings(max_examples=300, deadline=None)  # the first example compiles
@given(policies, drawn_batches(), modes, st.data())
def test_a_curve_agrees_with_the_plain_cache_at_every_size(
    policy: str, batches: Batches, access: AccessMode, data: st.DataObject
) -> None:
    groups = data.draw(st.lists(st.integers(0, 2), min_size=len(batches), max_size=len(batches)))
    accesses, slots = accesses_of(batches, groups), range(1, 8)
    expected = [accesses.count(~plain_hits(accesses, policy, size, access)).tolist() for size in slots]
    assert misses(accesses, policy, slots, access).tolist() == expected


@settings(max_examples=200, deadline=None)
@given(policies, drawn_batches(), modes, st.integers(1, 7))
def test_every_single_hit_agrees_with_the_plain_cache(policy: str, batches: Batches, access: AccessMode, slots: int) -> None:
    accesses = accesses_of(batches)
    found_N = hits(accesses, policy, slots, access)
    assert found_N.tolist() == plain_hits(accesses, policy, slots, access).tolist()


@settings(max_examples=200, deadline=None)
@given(policies, drawn_batches(), modes, st.integers(1, 20), st.lists(st.integers(1, 5), min_size=6, max_size=6))
def test_a_budget_in_bytes_agrees_with_the_plain_cache(
    policy: str, batches: Batches, access: AccessMode, budget: int, sizes: list[int]
) -> None:
    accesses = accesses_of(batches)
    expected = plain_hits(accesses, policy, budget, access, sizes)
    assert hits(accesses, policy, budget, access, np.array(sizes)).tolist() == expected.tolist()
    (missed_G,) = misses_in_bytes(accesses, policy, [budget], np.array(sizes), access)
    assert missed_G.tolist() == accesses.count(~expected).tolist()


@pytest.mark.parametrize("policy", EVERY_POLICY)
def test_a_budget_of_equal_blocks_is_so_many_slots(policy: str) -> None:
    accesses = accesses_of([[0, 1, 2], [2, 3], [0, 4], [1, 3]])
    in_bytes = misses_in_bytes(accesses, policy, [6, 7, 11, 12, 30], np.full(5, 6))
    assert in_bytes.tolist() == misses(accesses, policy, [1, 1, 1, 2, 5]).tolist()
    assert misses_in_bytes(accesses, policy, [5], np.full(5, 6)).tolist() == [[9]], "not even one block fits"


@settings(deadline=None)
@given(drawn_batches())
def test_first_uses_are_what_any_cache_of_all_blocks_misses(batches: Batches) -> None:
    accesses = accesses_of(batches, [index % 2 for index in range(len(batches))])
    for policy in EVERY_POLICY:
        assert misses(accesses, policy, [6, 600]).tolist() == [compulsory(accesses).tolist()] * 2
    seen: set[int] = set()
    counted = [0, 0]
    for index, batch in enumerate(batches):
        counted[index % 2] += len(set(batch) - seen)
        seen.update(batch)
    assert compulsory(accesses).tolist() == counted[: accesses.num_groups]


@settings(deadline=None)
@given(st.sampled_from([name for name in EVERY_POLICY if make_eviction(name).one_pass]), drawn_batches(), modes)
def test_a_stack_algorithm_never_misses_more_with_more_slots(policy: str, batches: Batches, access: AccessMode) -> None:
    curve = misses(accesses_of(batches), policy, range(1, 8), access)[:, 0]
    assert (np.diff(curve) <= 0).all()


def test_blocks_that_never_occur_change_nothing() -> None:
    near, far = accesses_of([[0, 1], [2, 0], [1]]), accesses_of([[7, 90], [4000, 7], [90]])
    for policy in EVERY_POLICY:
        assert misses(near, policy, [1, 2, 3]).tolist() == misses(far, policy, [1, 2, 3]).tolist()


def test_a_group_is_counted_apart_but_shares_the_cache() -> None:
    accesses = accesses_of([[0, 1], [0, 1]], [0, 2])
    assert misses(accesses, "lru", [1, 2]).tolist() == [[2, 0, 2], [2, 0, 0]]


def test_nothing_accessed_is_nothing_missed() -> None:
    nothing = Accesses(*[np.zeros(0, np.int64)] * 3)
    for policy in EVERY_POLICY:
        assert misses(nothing, policy, [1, 2]).shape == (2, 0)
        assert hits(nothing, policy, 1).tolist() == []
    assert compulsory(nothing).tolist() == []


def test_a_cache_of_nothing_is_refused() -> None:
    accesses = accesses_of([[0]])
    with pytest.raises(ValueError, match="a capacity of at least 1, not 0"):
        misses(accesses, "lru", [4, 0])
    with pytest.raises(ValueError, match="a capacity of at least 1, not -1"):
        hits(accesses, DEFAULT, -1)
    with pytest.raises(ValueError, match="a capacity of at least 1, not 0"):
        misses_in_bytes(accesses, "min", [0], np.ones(1, np.int64))
