"""How many accesses of a trace miss an expert cache, by policy and size.

Shape suffixes: N accesses in order, G groups that accesses are counted in, C cache sizes, B blocks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.policies.cache import AccessMode, Cache
from moeprof.policies.eviction.registry import make_eviction

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Accesses:
    """The accesses of one cache in order; a batch uses a block once."""

    blocks_N: Ints
    """What is used: an expert's id, or layer * E + expert where one cache holds all layers."""
    batches_N: Ints
    """Which batch (a step of a layer) an access belongs to, never falling."""
    groups_N: Ints
    """Where an access is counted: a small number, such as 0 for prefill and 1 for decode."""

    def __len__(self) -> int:
        return len(self.blocks_N)

    @property
    def num_groups(self) -> int:
        """Groups up to the highest that occurs."""
        return int(self.groups_N.max()) + 1 if len(self) else 0

    def count(self, flags_N: Flags) -> Ints:
        """How many accesses are flagged, by group (G,)."""
        return np.bincount(self.groups_N[flags_N], minlength=self.num_groups).astype(np.int64)


def compulsory(accesses: Accesses) -> Ints:
    """First uses, which no cache can avoid, by group (G,)."""
    first_N = np.zeros(len(accesses), bool)
    first_N[np.unique(accesses.blocks_N, return_index=True)[1]] = True
    return accesses.count(first_N)


def misses(accesses: Accesses, policy: str, slots: Sequence[int], access: AccessMode = "sequential") -> Ints:
    """Misses at every number of slots, by group (C, G), from a cold cache."""
    return np.stack([accesses.count(~hits(accesses, policy, size, access)) for size in slots])


def misses_in_bytes(
    accesses: Accesses, policy: str, budgets: Sequence[int], sizes_B: Ints, access: AccessMode = "sequential"
) -> Ints:
    """Misses at every budget in bytes, by group (C, G), where block b takes `sizes_B[b]` bytes."""
    return np.stack([accesses.count(~hits(accesses, policy, budget, access, sizes_B)) for budget in budgets])


def hits(
    accesses: Accesses, policy: str, capacity: int, access: AccessMode = "sequential", sizes_B: Ints | None = None
) -> Flags:
    """Which accesses find their block in a cache of `capacity` slots, or bytes where blocks have sizes (N,)."""
    sizes = None if sizes_B is None else sizes_B.tolist()
    cache = Cache(capacity, make_eviction(policy), future=accesses.blocks_N.tolist(), sizes=sizes)
    outcome = [one.hit for batch in batches(accesses) for one in cache.batch(batch, access)]
    return np.array(outcome, bool)


def batches(accesses: Accesses) -> Iterator[list[int]]:
    """The blocks of every batch, in order."""
    starts = np.flatnonzero(np.diff(accesses.batches_N, prepend=-1))
    blocks = accesses.blocks_N.tolist()
    for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(blocks)], strict=True):
        yield blocks[start:stop]
