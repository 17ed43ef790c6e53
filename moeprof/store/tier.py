"""Tiers of memory that hold the experts behind the cache slots: their parameters, host memory, or a file (backing.py)."""

from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import torch
from torch import Tensor

from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights

ExpertKey = tuple[str, int]
"""A layer and the logical id of one of its experts."""

Fill = Callable[[str, int, ExpertWeights], None]
"""Writes the weights of an expert, by layer and logical id, into views without a first dimension."""


TierName = Literal["weights", "host", "file"]
"""Where bytes come from: parameters or the shards of a checkpoint, entries in host memory, or a file that is read past the page cache."""


class Tier(Protocol):
    """A source of all experts of a model."""

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        """Copies an expert's entry, and returns where it was; called from one thread only. MoeprofError if it cannot be read."""
        ...


class FillTier:
    """Weights that are written into a cache slot by a function, as from parameters in memory or the shards of a checkpoint."""

    def __init__(self, layouts: Mapping[str, EntryLayout], fill: Fill) -> None:
        """`layouts` are those of the layers' entries."""
        self.layouts, self.fill = layouts, fill

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        """Writes the weights, and leaves the padding behind them as it is."""
        self.fill(layer, expert, self.layouts[layer].entry(into_B))
        return "weights"


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

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        """Copies the entry; from pinned memory the host does not wait for the device."""
        into_B.copy_(self.entries[layer, expert], non_blocking=True)
        return "host"
