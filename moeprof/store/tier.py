"""Tiers of memory that hold the experts behind the cache slots; a tier can be a cache of a slower one."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from moeprof.policies.cache import Cache
from moeprof.policies.eviction.eviction import Eviction
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights

ExpertKey = tuple[str, int]
"""A layer and the logical id of one of its experts."""

Fill = Callable[[str, int, ExpertWeights], None]
"""Writes the weights of an expert, by layer and logical id, into views without a first dimension."""


class Tier(Protocol):
    """A source of all experts of a model."""

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """Copies an expert's entry; called from one thread only. MoeprofError if the entry cannot be read."""
        ...


class FillTier:
    """Weights that are written into a cache slot by a function, as from parameters in memory or the shards of a checkpoint."""

    def __init__(self, layouts: Mapping[str, EntryLayout], fill: Fill) -> None:
        """`layouts` are those of the layers' entries."""
        self.layouts, self.fill = layouts, fill

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """Writes the weights, and leaves the padding behind them as it is."""
        self.fill(layer, expert, self.layouts[layer].entry(into_B))


class HostTier:
    """All entries in host memory, pinned if a GPU copies from it while it computes."""

    def __init__(self, entries: Mapping[ExpertKey, Tensor], *, pinned: bool = False) -> None:
        self.entries, self.pinned = dict(entries), pinned

    @classmethod
    def filled(cls, layout: EntryLayout, keys: list[ExpertKey], fill: Fill, *, pinned: bool) -> "HostTier":
        """A tier with the weights of these experts."""
        tier = cls({}, pinned=pinned)
        tier.add(layout, keys, fill)
        return tier

    def add(self, layout: EntryLayout, keys: list[ExpertKey], fill: Fill) -> None:
        """Adds the weights of these experts unless they are present."""
        for layer, expert in [key for key in keys if key not in self.entries]:
            entry_B = torch.zeros(layout.entry_bytes, dtype=torch.uint8, pin_memory=self.pinned)
            fill(layer, expert, layout.entry(entry_B))
            self.entries[layer, expert] = entry_B

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """Copies the entry; from pinned memory the host does not wait for the device."""
        into_B.copy_(self.entries[layer, expert], non_blocking=True)


class CachedTier:
    """A cache of some entries in memory in front of a slower tier that has all of them."""

    def __init__(self, layout: EntryLayout, num_slots: int, eviction: Eviction, slower: Tier, *, pinned: bool = False) -> None:
        self.slab_SB = layout.slab(num_slots, "cpu")
        if pinned:
            self.slab_SB = self.slab_SB.pin_memory()
        self.cache, self.slower = Cache(num_slots, eviction), slower
        self.numbers: dict[ExpertKey, int] = {}
        self.slots: dict[int, int] = {}
        self.free = list(range(num_slots))

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """Copies the entry from memory, after reading it from the slower tier if it is not cached."""
        number = self.numbers.setdefault((layer, expert), len(self.numbers))
        (access,) = self.cache.batch([number])
        self.free += [self.slots.pop(victim) for victim in access.victims if victim in self.slots]
        if number not in self.slots:  # also if an earlier read of a cached entry failed
            self.slower.read(layer, expert, self.slab_SB[self.free[-1]])
            self.slots[number] = self.free.pop()
        into_B.copy_(self.slab_SB[self.slots[number]])
