"""The replay of a trace through caches of every number of slots at once, for policies that allow it.

A policy whose priorities do not depend on the cache is a stack algorithm: the caches of 1, 2, 3, ... slots hold the first
1, 2, 3, ... blocks of one list, so the depth at which a block is found says which of them hit (Mattson et al. 1970). After a use
the list is updated from the top: of the block that is carried down and the block in place, the one with the higher priority stays.
Only policies that use the time of loading are no stack algorithms, because that time depends on the number of slots.

Shape suffixes: N accesses, K starts of batches and the end, B blocks, S places in the list, F traits.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from moeprof.analysis.caching.priority import ACTIVE, DUE, NEXT_USE, PROTECTION, USED, USES, priority, unseen
from moeprof.records.arrays import Ints
from moeprof.records.compiled import compiled

Depths = npt.NDArray[np.int32]


class Line(NamedTuple):
    """The blocks that were used, by depth."""

    weights_F: Ints
    traits_BF: Ints
    block_S: Ints
    priority_S: Ints
    place_B: Ints
    """The place of a block in the line, -1 before its first use."""
    length: Ints
    """(number of blocks in the line,)."""


@compiled
def recency_depths(blocks_N: Ints, starts_K: Ints, num_blocks: int, together: bool) -> Depths:
    """Depth of every access in the LRU stack, 0 for a first use (N,): the blocks used since its last use, itself included.

    `together` looks a whole batch up before it is used. A comparison with all blocks is faster than a tree at the number of
    experts that models have, because the processor compares several at once.
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


def depths(
    blocks_N: Ints, next_N: Ints, starts_K: Ints, weights_F: Ints, num_blocks: int, together: bool, protects: bool
) -> Depths:
    """Depth of every access, 0 for a first use (N,).

    `together` uses a whole batch before anything is evicted for it; `protects` spares what was just used.
    """
    line = empty_line(weights_F, num_blocks, blocks_N)
    return replayed(line, blocks_N, next_N, starts_K, together, PROTECTION if protects else 0)


def empty_line(weights_F: Ints, num_blocks: int, blocks_N: Ints) -> Line:
    """The line before the first use."""
    return Line(
        weights_F,
        unseen(num_blocks, blocks_N),
        np.zeros(num_blocks, np.int64),
        np.zeros(num_blocks, np.int64),
        np.full(num_blocks, -1, np.int64),
        np.zeros(1, np.int64),
    )


@compiled
def replayed(line: Line, blocks_N: Ints, next_N: Ints, starts_K: Ints, together: bool, protection: int) -> Depths:
    """Depth of every access of a line (N,), which is updated."""
    depth_N = np.zeros(len(blocks_N), np.int32)
    by_batch = line.weights_F[ACTIVE] != 0 or line.weights_F[DUE] != 0
    for batch in range(len(starts_K) - 1):
        start, stop = starts_K[batch], starts_K[batch + 1]
        if by_batch:
            announce(line, blocks_N, start, stop, 1)
        for step in range(start, start + 1 if together else stop):
            after = stop if together else step + 1
            for now in range(step, after):
                depth_N[now] = line.place_B[blocks_N[now]] + 1
                use(line, blocks_N[now], now, stop - start, next_N[now])
                update_priority(line, blocks_N[now], protection)
            for now in range(step, after):
                admit(line, blocks_N[now], protection)
                rise(line, blocks_N[now])
            for now in range(step, after):
                update_priority(line, blocks_N[now], 0)
        if by_batch:
            announce(line, blocks_N, start, stop, 0)
    return depth_N


@compiled
def announce(line: Line, blocks_N: Ints, start: int, stop: int, active: int) -> None:
    """Marks the blocks of a batch as active, with their positions in it, or as inactive when the batch is over."""
    for now in range(start, stop):
        line.traits_BF[blocks_N[now], ACTIVE] = active
        line.traits_BF[blocks_N[now], DUE] = active * (now - start + 1)
        update_priority(line, blocks_N[now], 0)


@compiled
def update_priority(line: Line, block: int, protection: int) -> None:
    """Computes the priority of a block of the line from its present traits."""
    if line.place_B[block] >= 0:
        line.priority_S[line.place_B[block]] = priority(line.weights_F, line.traits_BF, block) + protection


@compiled
def use(line: Line, block: int, now: int, period: int, next_use: int) -> None:
    """Updates the traits of a block that is used now."""
    line.traits_BF[block, USED], line.traits_BF[block, NEXT_USE] = now, next_use
    line.traits_BF[block, USES] += 1
    line.traits_BF[block, DUE] += period


@compiled
def admit(line: Line, block: int, protection: int) -> None:
    """Appends a block that is used for the first time to the end of the line."""
    if line.place_B[block] < 0:
        place = line.length[0]
        line.block_S[place], line.place_B[block] = block, place
        update_priority(line, block, protection)
        line.length[0] += 1


@compiled
def rise(line: Line, block: int) -> None:
    """Moves a used block to the top of the line, and each block that it displaces down to its new place.

    The used block is carried from the top down to its old place. Wherever the block in place has the lower priority, the two are
    exchanged, so the list ends as what caches of 1, 2, 3, ... slots hold. Priorities in brackets, block d was used:

        before  a(5)  b(2)  c(4)  d(9)    carry d(9)
                d(9)  a(5)  c(4)  .       a(5) and then b(2) are displaced; b(2) < c(4), so c stays
        after   d(9)  a(5)  c(4)  b(2)    a cache of 3 slots evicts b
    """
    last = line.place_B[block]
    carried = line.priority_S[last]
    for place in range(last):
        if line.priority_S[place] < carried:
            line.block_S[place], block = block, line.block_S[place]
            line.priority_S[place], carried = carried, line.priority_S[place]
            line.place_B[line.block_S[place]] = place
    line.block_S[last], line.priority_S[last], line.place_B[block] = block, carried, last
