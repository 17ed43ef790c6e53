"""The miss engines compiled, and as they are where numba is not installed; and the plain cache that both must agree with."""

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from unittest import mock

import numpy as np
import numpy.typing as npt

from moeprof.analysis import caching
from moeprof.analysis.caching.miss_counts import Accesses
from moeprof.policies.cache import AccessMode, Cache
from moeprof.policies.eviction.registry import make_eviction

MODULES = ["compiled", "priority", "stack_distance", "miss_counts"]


def uncompiled() -> ModuleType:
    """A second copy of `moeprof.analysis.caching.miss_counts`, imported as if numba were not there; the first one stays in place."""
    names = [f"moeprof.analysis.caching.{name}" for name in MODULES]
    with mock.patch.dict(sys.modules, {"numba": None}), mock.patch.multiple(caching, **dict.fromkeys(MODULES)):
        for name in names:
            del sys.modules[name]
        return [importlib.import_module(name) for name in names][-1]


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
