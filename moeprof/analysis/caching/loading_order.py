"""The replay of a trace through one cache of slots, for the policies that go by the time of loading only: LIFO and FIFO.

A use does not change their order, so a hit costs one look at a flag. The resident blocks are in a row in the order of loading, and
are evicted from one end of it: the last loaded, or the first. Blocks that are spared on the way there are put back.

Shape suffixes: N accesses, K starts of batches and the end, B blocks, W = 4 B places of the row.
"""

import numpy as np

from moeprof.records.arrays import Flags, Ints
from moeprof.records.compiled import compiled

FIRST, BEHIND = 0, 1
"""The ends of the row: the place of the first block, and the place behind the last."""


@compiled
def hits_by_loading(
    blocks_N: Ints, starts_K: Ints, num_blocks: int, lifo: bool, inactive_first: bool, together: bool, slots: int
) -> Flags:
    """Which accesses find their block resident, (N,).

    `together` uses a whole batch before anything is evicted for it. If inactive blocks go first and a batch fits, none of its blocks is
    evicted before it ends, so that it can be used as a whole in any case.
    """
    hit_N, resident_B = np.zeros(len(blocks_N), np.bool_), np.zeros(num_blocks, np.bool_)
    batch_B, step_B = np.full(num_blocks, -1, np.int64), np.full(num_blocks, -1, np.int64)
    row_W, ends, spared_B = np.zeros(4 * num_blocks, np.int64), np.zeros(2, np.int64), np.zeros(num_blocks, np.int64)
    for batch in range(len(starts_K) - 1):
        start, stop = starts_K[batch], starts_K[batch + 1]
        for now in range(start, stop if inactive_first else start):
            batch_B[blocks_N[now]] = batch
        whole = together or (inactive_first and stop - start <= slots)
        for step in range(start, start + 1 if whole else stop):
            for now in range(step, stop if whole else step + 1):
                block = blocks_N[now]
                hit_N[now] = resident_B[block]
                step_B[block] = step
                if not resident_B[block]:
                    append(row_W, ends, resident_B, block)
            if ends[BEHIND] - ends[FIRST] > slots and inactive_first:
                evict(row_W, ends, resident_B, slots, lifo, batch_B, batch, spared_B)
            if ends[BEHIND] - ends[FIRST] > slots:
                evict(row_W, ends, resident_B, slots, lifo, step_B, step, spared_B)
            if ends[BEHIND] - ends[FIRST] > slots:
                evict(row_W, ends, resident_B, slots, lifo, step_B, len(blocks_N), spared_B)
    return hit_N


@compiled
def append(row_W: Ints, ends: Ints, resident_B: Flags, block: int) -> None:
    """Loads a block; the row is moved back if it has reached its last place."""
    if ends[BEHIND] == len(row_W):
        first, length = ends[FIRST], ends[BEHIND] - ends[FIRST]
        for place in range(length):
            row_W[place] = row_W[first + place]
        ends[FIRST], ends[BEHIND] = 0, length
    row_W[ends[BEHIND]] = block
    ends[BEHIND] += 1
    resident_B[block] = True


@compiled
def evict(
    row_W: Ints, ends: Ints, resident_B: Flags, slots: int, lifo: bool, mark_B: Ints, spared_mark: int, spared_B: Ints
) -> None:
    """Evicts blocks from one end of the row until the rest fits, except those with the mark `spared_mark`."""
    first, behind, spared = ends[FIRST], ends[BEHIND], 0
    while behind - first + spared > slots and behind > first:
        if lifo:
            behind -= 1
            block = row_W[behind]
        else:
            block = row_W[first]
            first += 1
        if mark_B[block] == spared_mark:
            spared_B[spared] = block
            spared += 1
        else:
            resident_B[block] = False
    for back in range(spared - 1, -1, -1):
        if lifo:
            row_W[behind] = spared_B[back]
            behind += 1
        else:
            first -= 1
            row_W[first] = spared_B[back]
    ends[FIRST], ends[BEHIND] = first, behind
