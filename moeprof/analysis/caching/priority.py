"""An eviction policy as arithmetic: its order of criteria becomes one weighted sum of an expert's traits.

The engines for whole traces keep one such sum per block where the plain cache compares tuples; the block with the lowest priority
is evicted first.

Shape suffixes: F traits, in the order of `ExpertHistory` with the id last; N accesses, B blocks.
"""

from dataclasses import fields

import numpy as np

from moeprof.policies.eviction.eviction import Eviction, ExpertHistory
from moeprof.records.arrays import Ints
from moeprof.records.compiled import compiled

TRAITS = [field.name for field in fields(ExpertHistory)]
(INSERTED, USED, USES, USES_SINCE, ACTIVE, DUE, NEXT_USE, POPULARITY, PINNED, AGED, FRESH, FRESH_BATCH, ID, NUM_TRAITS) = range(
    14
)

PROTECTION = 2**62
"""Added to the priority of a block that must not be evicted; every weighted sum is smaller than half of it."""


def largest_traits(num_accesses: int, num_blocks: int, longest_batch: int) -> Ints:
    """The largest value that each trait can have in a trace, (F,)."""
    return np.array(
        [num_accesses] * 4
        + [1, 2 * longest_batch, num_accesses, num_accesses, 1, num_accesses, 1, num_accesses, num_blocks - 1],
        np.int64,
    )


def weights(eviction: Eviction, largest_F: Ints) -> Ints:
    """The weight of every trait in the sum, (F,): a smaller sum comes earlier in the policy's order.

    An earlier criterion outweighs all later ones together, and the id, which comes last, breaks ties. OverflowError if the
    sum does not fit in 64 bits. With criteria `lowest("active")`, `highest("inserted")`, 100 accesses and 8 blocks:

        id        weight   1, values 0 to 7
        inserted  weight  -8, values 0 to 100: one step outweighs any id
        active    weight 808 = 8 x 101: outweighs any `inserted` and id together
    """
    weights_F = [0] * NUM_TRAITS
    weights_F[ID], reach = 1, int(largest_F[ID]) + 1
    for criterion in reversed(eviction.order):
        trait = TRAITS.index(criterion.trait)
        weights_F[trait] += -reach if criterion.highest else reach
        reach *= int(largest_F[trait]) + 1
    if reach > PROTECTION // 2:
        raise OverflowError(f"{eviction.name}: priorities of a trace this long do not fit in 64 bits")
    return np.array(weights_F, np.int64)


def unseen(num_blocks: int, blocks_N: Ints) -> Ints:
    """The traits of blocks before their first use, (B, F)."""
    traits_BF = np.zeros((num_blocks, NUM_TRAITS), np.int64)
    traits_BF[:, INSERTED] = -1
    traits_BF[:, USED] = -1
    traits_BF[:, NEXT_USE] = len(blocks_N)
    traits_BF[:, POPULARITY] = np.bincount(blocks_N, minlength=num_blocks)
    traits_BF[:, ID] = np.arange(num_blocks)
    return traits_BF


@compiled
def priority(weights_F: Ints, traits_BF: Ints, block: int) -> int:
    """The weighted sum of a block's traits; the block with the lowest one is evicted first."""
    total = 0
    for trait in range(NUM_TRAITS):
        total += weights_F[trait] * traits_BF[block, trait]
    return total


@compiled
def next_uses(blocks_N: Ints, num_blocks: int) -> Ints:
    """The index of the next access to the block of every access, (N,); the length of the trace if there is none."""
    next_N = np.empty_like(blocks_N)
    following_B = np.full(num_blocks, len(blocks_N), np.int64)
    for now in range(len(blocks_N) - 1, -1, -1):
        next_N[now] = following_B[blocks_N[now]]
        following_B[blocks_N[now]] = now
    return next_N
