"""A tier between cache slots and a slower one: as many entries, of all layers and precisions, as a part of host memory holds.

B bytes of an entry.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from moeprof.store.entry import pages
from moeprof.store.tier import Tier, TierName


class EntryKey(NamedTuple):
    """What an entry is: an expert of a layer at a precision."""

    layer: str
    expert: int
    precision: str


class HostMemory:
    """Entries that were read from slower tiers; the least recently read leaves.

    If the layers are given in order of execution, an entry of the layer that runs last from now on leaves instead: of the running
    layer the last one that this step has read, then the least recently read one of the layer before it, and so on. With layers that
    run in a cycle this keeps the first ones, and a window of those that are next (M2Cache, arXiv 2410.14740).
    """

    def __init__(self, capacity_bytes: int, layers: Sequence[str] = (), *, pinned: bool = False) -> None:
        self.capacity_bytes, self.pinned = capacity_bytes, pinned
        self.position = {layer: index for index, layer in enumerate(layers)}
        self.sources: dict[str, Tier] = {}
        self.clear()

    def before(self, precision: str, slower: Tier) -> "CachedTier":
        """The slower tier, which has the entries of a precision, behind this memory."""
        self.sources[precision] = slower
        return CachedTier(self, precision)

    def clear(self) -> None:
        """Forgets all entries; no read may be in progress, here and below."""
        self.shelves: list[OrderedDict[EntryKey, Tensor]] = [OrderedDict() for _ in range(max(len(self.position), 1))]
        self.spare: dict[int, list[Tensor]] = {}
        self.held_bytes = 0
        self.begin(0)

    def begin(self, running: int) -> None:
        """A step of the layer at this position begins."""
        self.running, self.done = running, set[EntryKey]()

    def shelf(self, key: EntryKey) -> OrderedDict[EntryKey, Tensor]:
        """Where an entry is kept, in the order of the reads: with those of its layer, or with all."""
        return self.shelves[self.position[key.layer] if self.position else 0]

    def entry(self, key: EntryKey, num_bytes: int) -> tuple[Tensor, TierName]:
        """The entry (B,), which is read if it is not here, and where it was."""
        shelf = self.shelf(key)
        if self.position.get(key.layer) == self.running:
            self.done.add(key)
        if key in shelf:
            shelf.move_to_end(key)
            return shelf[key], "host"
        entry_B = self.room(num_bytes)
        try:
            found = self.sources[key.precision].read(key.layer, key.expert, entry_B)
        except BaseException:
            self.give_up(entry_B)
            raise
        shelf[key] = entry_B
        return entry_B, found

    def room(self, num_bytes: int) -> Tensor:
        """Memory for an entry, (B,), after as many others have left as must."""
        while self.held_bytes + num_bytes > self.capacity_bytes and any(self.shelves):
            key = self.victim()
            self.give_up(self.shelf(key).pop(key))
        self.held_bytes += num_bytes
        if self.spare.get(num_bytes):
            return self.spare[num_bytes].pop()
        if self.held_bytes + sum(size * len(entries) for size, entries in self.spare.items()) > self.capacity_bytes:
            self.spare.clear()
        return torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=True) if self.pinned else pages(num_bytes)

    def victim(self) -> EntryKey:
        """The entry that leaves next."""
        running, count = self.shelves[self.running], len(self.shelves)
        if done := [key for key in running if key in self.done]:
            return done[-1]
        order = [self.shelves[(self.running - behind) % count] for behind in range(1, count)]
        return next(iter(next(shelf for shelf in (*order, running) if shelf)))

    def give_up(self, entry_B: Tensor) -> None:
        """Keeps the memory of an entry for another one of its size."""
        self.held_bytes -= len(entry_B)
        self.spare.setdefault(len(entry_B), []).append(entry_B)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Restores the entries after the block, from the slower tiers as far as they left."""
        before = [(key, len(entry_B)) for shelf in self.shelves for key, entry_B in shelf.items()]
        yield
        staying = {key for key, _ in before}
        for shelf in self.shelves:
            for key in [key for key in shelf if key not in staying]:
                self.give_up(shelf.pop(key))
        for key, num_bytes in before:
            self.entry(key, num_bytes)


class CachedTier:
    """The entries of one precision, in host memory as far as they are there, and otherwise in a slower tier."""

    def __init__(self, memory: HostMemory, precision: str) -> None:
        self.memory, self.precision = memory, precision

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        """Copies the entry from host memory, after it was read into it if it was not there."""
        entry_B, found = self.memory.entry(EntryKey(layer, expert, self.precision), len(into_B))
        into_B.copy_(entry_B)  # waits, because the entry may leave after it
        return found


class ReadAhead:
    """Brings entries of a cached tier into its host memory, and no further."""

    def __init__(self, tier: CachedTier) -> None:
        self.tier = tier

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        """Reads the entry if it is not there; `into_B` only says how large it is."""
        return self.tier.memory.entry(EntryKey(layer, expert, self.tier.precision), len(into_B))[1]
