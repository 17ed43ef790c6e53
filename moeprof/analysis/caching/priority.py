"""An eviction policy as arithmetic: its order of criteria becomes one weighted sum of an expert's traits.

The engines for whole traces keep such a sum per block where the plain cache compares tuples; who ranks lowest leaves first.

Shape suffixes: F traits, in the order of `History` and the id last; N accesses, B blocks.
"""

from dataclasses import fields

import numpy as np

from moeprof.analysis.caching.compiled import compiled
from moeprof.policies.eviction.eviction import Eviction, History
from moeprof.records.arrays import Ints

TRAITS = [field.name for field in fields(History)]
INSERTED, USED, USES, USES_SINCE, ACTIVE, DUE, NEXT_USE, ID, NUM_TRAITS = range(9)

PROTECTION = 2**62
"""Added to the rank of who must not leave; every weighted sum is smaller than half of it."""


def largest_traits(num_accesses: int, num_blocks: int, longest_batch: int) -> Ints:
    """The largest value that a trait can take in a trace, (F,)."""
    return np.array([num_accesses] * 4 + [1, 2 * longest_batch, num_accesses, num_blocks - 1], np.int64)


def weights(eviction: Eviction, largest_F: Ints) -> Ints:
    """What to weigh traits by, (F,), so that a smaller sum stands earlier in the policy's order.

    An earlier criterion outweighs all later ones together, and the id, last, decides between equals. OverflowError where
    64 bits do not hold the sum.
    """
    weights_F = [0] * NUM_TRAITS
    weights_F[ID], reach = 1, int(largest_F[ID]) + 1
    for criterion in reversed(eviction.order):
        trait = TRAITS.index(criterion.trait)
        weights_F[trait] += -reach if criterion.highest else reach
        reach *= int(largest_F[trait]) + 1
    if reach > PROTECTION // 2:
        raise OverflowError(f"{eviction.name} cannot rank the blocks of a trace this long in 64 bits")
    return np.array(weights_F, np.int64)


@compiled
def unseen(num_blocks: int, num_accesses: int) -> Ints:
    """The traits of blocks that were never used, (B, F)."""
    traits_BF = np.zeros((num_blocks, NUM_TRAITS), np.int64)
    traits_BF[:, INSERTED] = -1
    traits_BF[:, USED] = -1
    traits_BF[:, NEXT_USE] = num_accesses
    traits_BF[:, ID] = np.arange(num_blocks)
    return traits_BF


@compiled
def rank(weights_F: Ints, traits_BF: Ints, block: int) -> int:
    """Where a block stands in the policy's order; the lowest leaves."""
    total = 0
    for trait in range(NUM_TRAITS):
        total += weights_F[trait] * traits_BF[block, trait]
    return total


@compiled
def next_uses(blocks_N: Ints, num_blocks: int) -> Ints:
    """When the block of every access is used next, (N,); the length of the trace where it is not."""
    next_N = np.empty_like(blocks_N)
    following_B = np.full(num_blocks, len(blocks_N), np.int64)
    for now in range(len(blocks_N) - 1, -1, -1):
        next_N[now] = following_B[blocks_N[now]]
        following_B[blocks_N[now]] = now
    return next_N
