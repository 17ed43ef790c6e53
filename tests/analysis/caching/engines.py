"""Batches as accesses, and the plain cache that the engines must agree with."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from moeprof.analysis.caching.miss_counts import Accesses
from moeprof.policies.cache import AccessMode, Cache
from moeprof.policies.eviction.registry import make_eviction


def accesses_of(batches: list[list[int]], groups: list[int] | None = None) -> Accesses:
    """Batches as accesses, each batch counted in its group."""
    sizes = [len(batch) for batch in batches]
    return Accesses(
        np.array([block for batch in batches for block in batch], np.int64),
        np.repeat(np.arange(len(batches)), sizes),
        np.repeat(np.array(groups or [0] * len(batches), np.int64), sizes),
    )


def plain_hits(
    accesses: Accesses, policy: str, capacity: int, access: AccessMode, sizes: list[int] | None = None
) -> npt.NDArray[np.bool_]:
    """What the plain cache finds, asked batch by batch (N,)."""
    cache = Cache(capacity, make_eviction(policy), future=accesses.blocks_N.tolist(), sizes=sizes)
    return np.array([one.hit for batch in batches_of(accesses) for one in cache.batch(batch, access)], bool)


def batches_of(accesses: Accesses) -> Iterator[list[int]]:
    """The blocks of every batch."""
    starts = accesses.starts_K[1:-1]
    return (batch.tolist() for batch in np.split(accesses.blocks_N, starts))
