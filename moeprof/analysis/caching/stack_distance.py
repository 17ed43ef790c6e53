"""Replays a trace through caches as fast as it goes: all numbers of slots in one pass where a policy allows it, else one size.

A policy that ranks blocks without regard to the cache is a stack algorithm: the caches of 1, 2, 3, ... slots hold the first
1, 2, 3, ... blocks of one list, so that the depth at which a block is found says which of them hit (Mattson et al. 1970).
After a use the list is walked from the top: of the block that is carried and the block met, the one that leaves later stays.
Only policies that go by insertion are none, for when a block was last loaded depends on the slots.

Shape suffixes: N accesses, K starts of batches and the end, B blocks, S places in the list, F traits.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moeprof.analysis.caching.compiled import compiled
from moeprof.analysis.caching.priority import ACTIVE, DUE, INSERTED, NEXT_USE, USED, USES, USES_SINCE, rank, unseen
from moeprof.records.arrays import Ints

Depths = npt.NDArray[np.int32]

ALL_SIZES = 0
"""The capacity that stands for a cache of every number of slots."""


class Line(NamedTuple):
    """The blocks that are there: by depth for all sizes at once, in any order for one."""

    weights_F: Ints
    traits_BF: Ints
    block_S: Ints
    rank_S: Ints
    place_B: Ints
    """Where a block stands, -1 where it is not there."""
    filled: Ints
    """(blocks that are there, and what they take)."""


LENGTH, HELD = 0, 1


@compiled
def recency_depths(blocks_N: Ints, starts_K: Ints, num_blocks: int, together: bool) -> Depths:
    """Depth of every access in the LRU stack, 0 for a first use (N,): the blocks used since its last use, itself included.

    `together` looks a whole batch up before it is used. Comparing with all blocks beats a tree at the number of experts that
    models have, for the processor compares several at once.
    """
    depth_N = np.zeros(len(blocks_N), np.int32)
    used_B = np.full(num_blocks, -1, np.int32)
    for batch in range(len(starts_K) - 1):
        start, stop = starts_K[batch], starts_K[batch + 1]
        for now in range(start, stop):
            before = used_B[blocks_N[now]]
            if before >= 0:
                later = 0
                for block in range(num_blocks):
                    later += used_B[block] > before
                depth_N[now] = later + 1
            if not together:
                used_B[blocks_N[now]] = now
        for now in range(start, stop):
            used_B[blocks_N[now]] = now
    return depth_N


@compiled
def depths(
    blocks_N: Ints,
    next_N: Ints,
    starts_K: Ints,
    weights_F: Ints,
    sizes_B: Ints,
    together: bool,
    protection: int,
    capacity: int,
) -> Depths:
    """Depth of every access, 0 where no cache has it (N,); with a capacity other than ALL_SIZES every hit is at depth 1.

    `together` uses a whole batch before anybody leaves for it; `protection` is added to the rank of what was just used.
    """
    depth_N = np.zeros(len(blocks_N), np.int32)
    line = empty_line(weights_F, len(sizes_B), len(blocks_N))
    by_batch = weights_F[ACTIVE] != 0 or weights_F[DUE] != 0
    for batch in range(len(starts_K) - 1):
        start, stop = starts_K[batch], starts_K[batch + 1]
        if by_batch:
            announce(line, blocks_N, start, stop, 1)
        for step in range(start, start + 1 if together else stop):
            after = stop if together else step + 1
            for now in range(step, after):
                depth_N[now] = depth(line, blocks_N[now], capacity)
                use(line, blocks_N[now], now, stop - start, next_N[now], depth_N[now] == 0)
                rerank(line, blocks_N[now], protection)
            for now in range(step, after):
                admit(line, blocks_N[now], protection, sizes_B)
                if capacity == ALL_SIZES:
                    rise(line, blocks_N[now])
            if capacity != ALL_SIZES:
                evict(line, sizes_B, capacity)
            for now in range(step, after):
                rerank(line, blocks_N[now], 0)
        if by_batch:
            announce(line, blocks_N, start, stop, 0)
    return depth_N


@compiled
def empty_line(weights_F: Ints, num_blocks: int, num_accesses: int) -> Line:
    """Nobody there yet."""
    return Line(
        weights_F,
        unseen(num_blocks, num_accesses),
        np.zeros(num_blocks, np.int64),
        np.zeros(num_blocks, np.int64),
        np.full(num_blocks, -1, np.int64),
        np.zeros(2, np.int64),
    )


@compiled
def announce(line: Line, blocks_N: Ints, start: int, stop: int, active: int) -> None:
    """Notes who a batch will use and when, or that it is over."""
    for now in range(start, stop):
        line.traits_BF[blocks_N[now], ACTIVE] = active
        line.traits_BF[blocks_N[now], DUE] = active * (now - start + 1)
        rerank(line, blocks_N[now], 0)


@compiled
def rerank(line: Line, block: int, protection: int) -> None:
    """Ranks a block by what is known of it now, if it is there."""
    if line.place_B[block] >= 0:
        line.rank_S[line.place_B[block]] = rank(line.weights_F, line.traits_BF, block) + protection


@compiled
def depth(line: Line, block: int, capacity: int) -> int:
    """Where a block is found, from 1, or 0."""
    return line.place_B[block] + 1 if capacity == ALL_SIZES else int(line.place_B[block] >= 0)


@compiled
def use(line: Line, block: int, now: int, period: int, next_use: int, missed: bool) -> None:
    """Brings what is known of a block up to date."""
    if missed:
        line.traits_BF[block, INSERTED], line.traits_BF[block, USES_SINCE] = now, 0
    line.traits_BF[block, USED], line.traits_BF[block, NEXT_USE] = now, next_use
    line.traits_BF[block, USES] += 1
    line.traits_BF[block, USES_SINCE] += 1
    line.traits_BF[block, DUE] += period


@compiled
def admit(line: Line, block: int, protection: int, sizes_B: Ints) -> None:
    """Takes a block in that is not there: at the end of the line."""
    if line.place_B[block] < 0:
        place = line.filled[LENGTH]
        line.block_S[place], line.place_B[block] = block, place
        rerank(line, block, protection)
        line.filled[LENGTH] += 1
        line.filled[HELD] += sizes_B[block]


@compiled
def rise(line: Line, block: int) -> None:
    """Carries a used block from the top of the line down to its place, whoever leaves first carried on from there."""
    last = line.place_B[block]
    own_rank = line.rank_S[last]
    for place in range(last):
        if line.rank_S[place] < own_rank:
            line.block_S[place], block = block, line.block_S[place]
            line.rank_S[place], own_rank = own_rank, line.rank_S[place]
            line.place_B[line.block_S[place]] = place
    line.block_S[last], line.rank_S[last], line.place_B[block] = block, own_rank, last


@compiled
def evict(line: Line, sizes_B: Ints, capacity: int) -> None:
    """Lets the lowest ranks leave until the rest fits."""
    while line.filled[HELD] > capacity:
        place = np.argmin(line.rank_S[: line.filled[LENGTH]])
        last = line.filled[LENGTH] - 1
        line.filled[HELD] -= sizes_B[line.block_S[place]]
        line.place_B[line.block_S[place]] = -1
        if place != last:
            line.block_S[place], line.rank_S[place] = line.block_S[last], line.rank_S[last]
            line.place_B[line.block_S[place]] = place
        line.filled[LENGTH] = last
