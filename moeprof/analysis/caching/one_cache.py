"""The replay of a trace through one cache of a fixed size, for any policy and blocks of any sizes.

The resident blocks form a doubly linked list in the order of the policy, the next victim first. A use moves only the used block: to an
end of the list if the policy goes by the time of loading or of use, otherwise past the blocks between its old priority and its new
one. What is evicted is the first block of the list that nothing spares.

Shape suffixes: N accesses, K starts of batches and the end, B blocks, F traits, G groups, T = B + 1 rows: the blocks and the end.
"""

import numpy as np

from moeprof.analysis.caching.priority import (
    ACTIVE,
    AGED,
    DUE,
    FRESH,
    FRESH_BATCH,
    INSERTED,
    NEXT_USE,
    NUM_TRAITS,
    PINNED,
    POPULARITY,
    USED,
    USES,
    USES_SINCE,
    priority,
    unseen,
)
from moeprof.records.arrays import Flags, Ints
from moeprof.records.compiled import compiled

PRIORITY, FOLLOWING, PRECEDING, BATCH, NUM_COLUMNS = range(NUM_TRAITS, NUM_TRAITS + 5)
"""Columns behind the traits: the priority, the neighbours in the list (FOLLOWING is -1 if the block is not resident), and the last
batch that has the block. The last row is both ends of the list, and its AGED is the age of the cache."""

FREE, ACTIVE_NOW, JUST_USED = range(3)
"""How much a block is spared."""


def hits_of_one_cache(
    blocks_N: Ints,
    next_N: Ints,
    starts_K: Ints,
    before_K: Ints,
    weights_F: Ints,
    sizes_B: Ints,
    together: bool,
    protects: bool,
    capacity: int,
) -> Flags:
    """Which accesses find their block resident, (N,).

    `before_K` is the batch before each one of the same layer, -1 if there is none; it is empty if the policy does not order by it.
    `together` uses a whole batch before anything is evicted for it; `protects` spares what was just used. If inactive blocks go first
    and a batch fits, no block of the batch is evicted before the batch ends, so that it can be used as a whole, unless evictions age it.
    """
    order_F = weights_F.copy()
    order_F[ACTIVE] = 0  # spares a block, but does not move it
    by_use = bool(order_F[USED:ACTIVE].any() or order_F[DUE : NUM_TRAITS - 1].any())
    state_TC, inactive_first = cold(blocks_N, sizes_B, capacity), bool(weights_F[ACTIVE])
    return replayed(
        state_TC, blocks_N, next_N, starts_K, before_K, order_F, sizes_B, together, protects, inactive_first, by_use, capacity
    )


def cold(blocks_N: Ints, sizes_B: Ints, capacity: int) -> Ints:
    """The rows of a cache without blocks, (T, columns)."""
    num_blocks = len(sizes_B)
    state_TC = np.full((num_blocks + 1, NUM_COLUMNS), -1, np.int64)
    state_TC[:, :NUM_TRAITS] = unseen(num_blocks + 1, blocks_N)
    popular_B = np.argsort(-state_TC[:num_blocks, POPULARITY], kind="stable")
    state_TC[popular_B, PINNED] = np.cumsum(sizes_B[popular_B]) <= capacity // 2
    state_TC[num_blocks, FOLLOWING] = state_TC[num_blocks, PRECEDING] = num_blocks
    return state_TC


@compiled
def replayed(
    state_TC: Ints,
    blocks_N: Ints,
    next_N: Ints,
    starts_K: Ints,
    before_K: Ints,
    order_F: Ints,
    sizes_B: Ints,
    together: bool,
    protects: bool,
    inactive_first: bool,
    by_use: bool,
    capacity: int,
) -> Flags:
    """The accesses through a cache in this state; `by_use` says whether a use moves a resident block."""
    hit_N, held, by_due = np.zeros(len(blocks_N), np.bool_), 0, order_F[DUE] != 0
    for batch in range(len(starts_K) - 1):
        start, stop = starts_K[batch], starts_K[batch + 1]
        length = announce(state_TC, blocks_N, start, stop, sizes_B, batch)
        if by_due:
            set_due(state_TC, order_F, blocks_N, start, stop, 1)
        if len(before_K) > 0 and before_K[batch] >= 0:
            become_stale(state_TC, order_F, blocks_N, starts_K[before_K[batch]], starts_K[before_K[batch] + 1])
        whole = together or (inactive_first and length <= capacity and order_F[AGED] == 0)
        for step in range(start, start + 1 if whole else stop):
            for now in range(step, stop if whole else step + 1):
                block = blocks_N[now]
                hit_N[now] = state_TC[block, FOLLOWING] >= 0
                use(state_TC, block, now, stop - start, next_N[now], batch)
                if not hit_N[now]:
                    held += sizes_B[block]
                if by_use or not hit_N[now]:
                    move(state_TC, order_F, block)
            if held > capacity:
                held = shrink(state_TC, sizes_B, held, capacity, step if protects else len(blocks_N), batch, inactive_first)
        if by_due:
            set_due(state_TC, order_F, blocks_N, start, stop, 0)
    return hit_N


@compiled
def announce(state_TC: Ints, blocks_N: Ints, start: int, stop: int, sizes_B: Ints, batch: int) -> int:
    """Notes which blocks the batch has; their size."""
    total = 0
    for now in range(start, stop):
        state_TC[blocks_N[now], BATCH] = batch
        total += sizes_B[blocks_N[now]]
    return total


@compiled
def set_due(state_TC: Ints, order_F: Ints, blocks_N: Ints, start: int, stop: int, active: int) -> None:
    """Gives the blocks of a batch their positions in it, or 0 when the batch is over, and moves them."""
    for now in range(start, stop):
        block = blocks_N[now]
        state_TC[block, DUE] = active * (now - start + 1)
        if state_TC[block, FOLLOWING] >= 0:
            move(state_TC, order_F, block)


@compiled
def become_stale(state_TC: Ints, order_F: Ints, blocks_N: Ints, start: int, stop: int) -> None:
    """Notes that the layer of a batch runs again, and moves the blocks of the batch."""
    for now in range(start, stop):
        block = blocks_N[now]
        state_TC[block, FRESH] = state_TC[block, FRESH_BATCH] = 0
        if state_TC[block, FOLLOWING] >= 0:
            move(state_TC, order_F, block)


@compiled
def use(state_TC: Ints, block: int, now: int, period: int, next_use: int, batch: int) -> None:
    """Updates the traits of a block that is used."""
    if state_TC[block, FOLLOWING] < 0:
        state_TC[block, INSERTED], state_TC[block, USES_SINCE] = now, 0
    state_TC[block, USED], state_TC[block, NEXT_USE] = now, next_use
    state_TC[block, USES] += 1
    state_TC[block, USES_SINCE] += 1
    state_TC[block, DUE] += period
    state_TC[block, AGED] = state_TC[block, USES_SINCE] + state_TC[-1, AGED]
    state_TC[block, FRESH], state_TC[block, FRESH_BATCH] = 1, batch + 1


@compiled
def move(state_TC: Ints, order_F: Ints, block: int) -> None:
    """Puts a block where its present priority belongs."""
    end = before = len(state_TC) - 1
    present = priority(order_F, state_TC, block)
    if state_TC[block, FOLLOWING] >= 0:
        if present > state_TC[block, PRIORITY]:
            before = state_TC[block, PRECEDING]
        unlink(state_TC, block)
    last = state_TC[end, PRECEDING]
    if last != end and state_TC[last, PRIORITY] < present:
        before = last
    after = state_TC[before, FOLLOWING]
    while after != end and state_TC[after, PRIORITY] < present:
        before, after = after, state_TC[after, FOLLOWING]
    state_TC[block, PRIORITY], state_TC[block, PRECEDING], state_TC[block, FOLLOWING] = present, before, after
    state_TC[before, FOLLOWING] = state_TC[after, PRECEDING] = block


@compiled
def unlink(state_TC: Ints, block: int) -> None:
    """Takes a block out of the list."""
    before, after = state_TC[block, PRECEDING], state_TC[block, FOLLOWING]
    state_TC[before, FOLLOWING], state_TC[after, PRECEDING], state_TC[block, FOLLOWING] = after, before, -1


@compiled
def shrink(state_TC: Ints, sizes_B: Ints, held: int, capacity: int, since: int, batch: int, inactive_first: bool) -> int:
    """Evicts blocks until the rest fits, in the order of the list, those that are spared least first; the size of the rest.

    Blocks that were used at `since` or later are spared most.
    """
    end = len(state_TC) - 1
    for spared in (FREE, ACTIVE_NOW, JUST_USED):
        block = state_TC[end, FOLLOWING]
        while held > capacity and block != end:
            after = state_TC[block, FOLLOWING]
            active = ACTIVE_NOW if inactive_first and state_TC[block, BATCH] == batch else FREE
            if spared == (JUST_USED if state_TC[block, USED] >= since else active):
                unlink(state_TC, block)
                held -= sizes_B[block]
                state_TC[end, AGED] = max(state_TC[end, AGED], state_TC[block, AGED])
            block = after
        if held <= capacity:
            break
    return held


@compiled
def counted(groups_N: Ints, flags_N: Flags, num_groups: int) -> Ints:
    """The number of flagged accesses, by group (G,)."""
    count_G = np.zeros(num_groups, np.int64)
    group, flagged = 0, 0
    for now in range(len(groups_N)):
        if groups_N[now] != group:
            count_G[group] += flagged
            group, flagged = groups_N[now], 0
        flagged += flags_N[now]
    if flagged:
        count_G[group] += flagged
    return count_G
