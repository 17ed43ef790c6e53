"""Where experts that have no slot lie: tiers of memory, each of which can stand in front of a slower one."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from moeprof.policies.cache import Cache
from moeprof.policies.eviction.eviction import Eviction
from moeprof.store.record import RecordLayout
from moeprof.store.resident import ExpertWeights

ExpertKey = tuple[str, int]
"""A layer, and the logical number of one of its experts."""

Fill = Callable[[str, int, ExpertWeights], None]
"""Writes the weights of an expert, by layer and logical number, into views without a first dimension."""


class Tier(Protocol):
    """Holds every expert, or can get it."""

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """Copies an expert's record; only ever called by one thread. MoeprofError where it cannot be had."""
        ...


class HostTier:
    """All records in memory beside the device, pinned where a GPU is to copy from it while it computes."""

    def __init__(self, records: Mapping[ExpertKey, Tensor], *, pinned: bool = False) -> None:
        self.records, self.pinned = dict(records), pinned

    @classmethod
    def filled(cls, layout: RecordLayout, keys: list[ExpertKey], fill: Fill, *, pinned: bool) -> "HostTier":
        """With the weights of these experts."""
        tier = cls({}, pinned=pinned)
        tier.add(layout, keys, fill)
        return tier

    def add(self, layout: RecordLayout, keys: list[ExpertKey], fill: Fill) -> None:
        """The weights of these experts, as far as they are not there."""
        for layer, expert in [key for key in keys if key not in self.records]:
            record_B = torch.zeros(layout.record_bytes, dtype=torch.uint8, pin_memory=self.pinned)
            fill(layer, expert, layout.weights(record_B[None]).map(lambda whole: whole[0]))
            self.records[layer, expert] = record_B

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """From pinned memory the host need not wait for the device."""
        into_B.copy_(self.records[layer, expert], non_blocking=True)


class CachedTier:
    """Some records in memory, all of them in a slower tier behind it: a tier made of two."""

    def __init__(self, layout: RecordLayout, num_slots: int, eviction: Eviction, slower: Tier, *, pinned: bool = False) -> None:
        self.slab_SB = layout.slab(num_slots, "cpu")
        if pinned:
            self.slab_SB = self.slab_SB.pin_memory()
        self.cache, self.slower = Cache(num_slots, eviction), slower
        self.numbers: dict[ExpertKey, int] = {}
        self.slots: dict[int, int] = {}
        self.free = list(range(num_slots))

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """From memory where it is there, else through it."""
        number = self.numbers.setdefault((layer, expert), len(self.numbers))
        (access,) = self.cache.batch([number])
        self.free += [self.slots.pop(victim) for victim in access.victims if victim in self.slots]
        if number not in self.slots:  # what could not be read before is not there, whatever the cache believes
            self.slower.read(layer, expert, self.slab_SB[self.free[-1]])
            self.slots[number] = self.free.pop()
        into_B.copy_(self.slab_SB[self.slots[number]])
