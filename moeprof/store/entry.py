"""The layout of one expert in memory and on disk: an entry of its matrices and biases, padded to whole pages.

Direct I/O can only transfer whole pages. S cache slots, B bytes of an entry, N elements of an entry.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from moeprof.records.errors import MoeprofError
from moeprof.records.system.files import PAGE, reason
from moeprof.records.units import format_bytes
from moeprof.store.resident import ExpertWeights


@dataclass(frozen=True)
class EntryLayout:
    """Offsets of an expert's tensors in its entry, the same for all experts of a model."""

    tensors: Mapping[str, tuple[int, ...]]
    """Shapes by name, in the order of the weights."""
    dtype: torch.dtype

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in the order of the entry: matrices before biases, so that matrices are aligned as kernels need it."""
        return dict(sorted(self.tensors.items(), key=lambda item: -len(item[1])))

    @property
    def expert_bytes(self) -> int:
        """Size of the weights without padding."""
        return sum(map(prod, self.shapes.values())) * self.dtype.itemsize

    @property
    def entry_bytes(self) -> int:
        """B: the size of the weights, rounded up to whole pages."""
        return -(-self.expert_bytes // PAGE) * PAGE

    def slab(self, num_slots: int, device: str) -> Tensor:
        """Zeros for S entries, (S, B) uint8; on a CPU aligned to pages and counted as private memory of the process."""
        if device == "cpu" and type(torch.empty(0)) is Tensor:  # fake tensors have no memory to align
            try:
                memory = mmap.mmap(-1, num_slots * self.entry_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as error:
                what = f"{num_slots} slots of {format_bytes(self.entry_bytes)}: {reason(error)}"
                raise MoeprofError(what, "Use fewer slots, or a smaller model.") from error
            return torch.frombuffer(memory, dtype=torch.uint8).view(num_slots, self.entry_bytes)
        return torch.zeros(num_slots, self.entry_bytes, dtype=torch.uint8, device=device)

    def weights(self, slab_SB: Tensor) -> ExpertWeights:
        """Views of S entries as stacked weights, which kernels use without a copy."""
        elements_SN = slab_SB.view(self.dtype)
        views, first = {}, 0
        for name, shape in self.shapes.items():
            views[name] = elements_SN[:, first : first + prod(shape)].view(-1, *shape)
            first += prod(shape)
        return ExpertWeights((name, views[name]) for name in self.tensors)
