"""The number of accesses in a trace that miss an expert cache, by policy and size.

Shape suffixes: N accesses in order, G groups that accesses are counted in, C cache sizes, B blocks.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from moeprof.analysis.caching.loading_order import hits_by_loading
from moeprof.analysis.caching.one_cache import counted, hits_of_one_cache
from moeprof.analysis.caching.priority import largest_traits, next_uses, weights
from moeprof.analysis.caching.stack_distance import Depths, depths, recency_depths
from moeprof.policies.cache import AccessMode
from moeprof.policies.eviction.eviction import Eviction
from moeprof.policies.eviction.registry import EVICTION, make_eviction
from moeprof.records.arrays import Flags, Ints, first_places
from moeprof.records.system.resources import num_cores


@dataclass(frozen=True)
class Accesses:
    """The accesses of one cache in order; a batch uses a block once."""

    blocks_N: Ints
    """The expert's id, or layer * E + expert if one cache holds all layers."""
    batches_N: Ints
    """The batch (a step of a layer) of an access, never falling."""
    groups_N: Ints
    """The group that an access is counted in: a small number, such as 0 for prefill and 1 for decode."""

    layers_N: Ints | None = None
    """The layer of every access; None if the cache is of one layer."""

    def __len__(self) -> int:
        return len(self.blocks_N)

    @property
    def num_groups(self) -> int:
        """One more than the highest group that occurs."""
        return int(self.groups_N.max()) + 1 if len(self) else 0

    @property
    def starts_K(self) -> Ints:
        """The index of the first access of every batch, and the end."""
        changes_N = np.diff(self.batches_N) != 0
        return np.concatenate([[0], np.flatnonzero(changes_N) + 1, [len(self)]]).astype(np.int64)

    def before_K(self, starts_K: Ints) -> Ints:
        """For every batch the batch before it of the same layer, -1 if there is none."""
        if self.layers_N is None:
            return np.arange(-1, len(starts_K) - 2)
        layer_K = self.layers_N[starts_K[:-1]]
        order_K, before_K = np.argsort(layer_K, kind="stable"), np.full(len(layer_K), -1, np.int64)
        same_K = layer_K[order_K][1:] == layer_K[order_K][:-1]
        before_K[order_K[1:][same_K]] = order_K[:-1][same_K]
        return before_K

    def count(self, flags_N: Flags) -> Ints:
        """The number of flagged accesses, by group (G,)."""
        return counted(self.groups_N, flags_N, self.num_groups)


def compulsory(accesses: Accesses) -> Ints:
    """First uses, which miss in every cache, by group (G,)."""
    first_B = first_places(accesses.blocks_N, int(accesses.blocks_N.max(initial=-1)) + 1)
    first_N = np.zeros(len(accesses), bool)
    first_N[first_B[first_B < len(accesses)]] = True
    return accesses.count(first_N)


def misses(accesses: Accesses, policy: str, slots: Sequence[int], access: AccessMode = "sequential") -> Ints:
    """Misses at every number of slots, by group (C, G), from a cold cache; ValueError for a cache without a slot."""
    return misses_in_bytes(accesses, policy, slots, unit_sizes(accesses), access)


def misses_in_bytes(
    accesses: Accesses, policy: str, budgets: Sequence[int], sizes_B: Ints, access: AccessMode = "sequential"
) -> Ints:
    """Misses at every budget in bytes, by group (C, G), where block b takes `sizes_B[b]` bytes.

    A block larger than the whole budget always misses. ValueError for a budget below 1.
    """
    checked(*budgets)
    eviction = make_eviction(policy)
    accesses, sizes_B = renumbered(accesses, sizes_B)
    if not eviction.one_pass or not equal(sizes_B):
        replayed, num_groups = one_cache(accesses, eviction, sizes_B, access), accesses.num_groups
        with ThreadPoolExecutor(num_cores()) as cores:
            return np.stack(list(cores.map(lambda budget: counted(accesses.groups_N, ~replayed(budget), num_groups), budgets)))
    depth_N = all_sizes(accesses, eviction, len(sizes_B), access == "batch")
    return deeper(accesses, depth_N, np.asarray(budgets, np.int64) // sizes_B[0])


def hits(
    accesses: Accesses, policy: str, capacity: int, access: AccessMode = "sequential", sizes_B: Ints | None = None
) -> Flags:
    """Which accesses hit (N,), in a cache of `capacity` slots, or bytes if blocks have sizes."""
    checked(capacity)
    dense, sizes_B = renumbered(accesses, unit_sizes(accesses) if sizes_B is None else sizes_B)
    return one_cache(dense, make_eviction(policy), sizes_B, access)(capacity)


def unit_sizes(accesses: Accesses) -> Ints:
    """Sizes of 1 for every block (B,), so that a capacity counts slots."""
    return np.ones(int(accesses.blocks_N.max(initial=-1)) + 1, np.int64)


def equal(sizes_B: Ints) -> bool:
    """Whether there are blocks, and all have one size."""
    return len(np.unique(sizes_B)) == 1


def checked(*capacities: int) -> None:
    """ValueError for a capacity below 1."""
    if min(capacities) < 1:
        raise ValueError(f"a cache needs a capacity of at least 1, not {min(capacities)}")


def renumbered(accesses: Accesses, sizes_B: Ints) -> tuple[Accesses, Ints]:
    """The same accesses to blocks 0, 1, 2, ... in the same order, and their sizes; blocks that never occur are dropped."""
    used = np.flatnonzero(np.bincount(accesses.blocks_N))
    number_B = np.zeros(len(sizes_B), np.int64)
    number_B[used] = np.arange(len(used))
    return replace(accesses, blocks_N=number_B[accesses.blocks_N]), sizes_B[used].astype(np.int64)


def one_cache(accesses: Accesses, eviction: Eviction, sizes_B: Ints, access: AccessMode) -> Callable[[int], Flags]:
    """A function that replays the trace through a cache of a capacity, and returns which accesses hit (N,)."""
    starts_K, num_blocks, together = accesses.starts_K, len(sizes_B), access == "batch"
    if eviction.by_loading_only and equal(sizes_B):
        lifo, inactive_first = eviction.order[-1].highest, len(eviction.order) > 1
        return lambda capacity: hits_by_loading(
            accesses.blocks_N, starts_K, num_blocks, lifo, inactive_first, together, capacity // int(sizes_B[0])
        )
    return partial(
        hits_of_one_cache,
        accesses.blocks_N,
        next_uses(accesses.blocks_N, num_blocks),
        starts_K,
        accesses.before_K(starts_K) if eviction.by_layer and len(accesses) else np.zeros(0, np.int64),
        weights_of(accesses, eviction, num_blocks, starts_K),
        sizes_B,
        together,
        not eviction.may_bypass,
    )


def all_sizes(accesses: Accesses, eviction: Eviction, num_blocks: int, together: bool) -> Depths:
    """The depth of every access (N,): the fewest slots with which it hits, 0 if it always misses."""
    starts_K = accesses.starts_K
    if eviction == EVICTION["lru"]:
        return recency_depths(accesses.blocks_N, starts_K, num_blocks, together)
    weights_F = weights_of(accesses, eviction, num_blocks, starts_K)
    next_N = next_uses(accesses.blocks_N, num_blocks)
    return depths(accesses.blocks_N, next_N, starts_K, weights_F, num_blocks, together, not eviction.may_bypass)


def weights_of(accesses: Accesses, eviction: Eviction, num_blocks: int, starts_K: Ints) -> Ints:
    """The weights of a policy for this trace, (F,)."""
    return weights(eviction, largest_traits(len(accesses), num_blocks, int(np.diff(starts_K).max())))


def deeper(accesses: Accesses, depth_N: Depths, slots: Ints) -> Ints:
    """Accesses whose depth exceeds each number of slots, or that are found at no depth, by group (C, G)."""
    num_depths = int(depth_N.max(initial=0)) + 1
    cells = np.bincount(accesses.groups_N * num_depths + depth_N, minlength=accesses.num_groups * num_depths)
    found_GD = cells.reshape(accesses.num_groups, num_depths)
    hits_GD = np.cumsum(found_GD, axis=1) - found_GD[:, :1]
    misses_GC: Ints = found_GD.sum(axis=1, keepdims=True) - hits_GD[:, np.minimum(slots, num_depths - 1)]
    return misses_GC.T
