"""The layout of one expert in memory and on disk: an entry of its matrices and biases, padded to whole pages.

Direct I/O can only transfer whole pages. S cache slots, B bytes of an entry.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import torch
from torch import Tensor

from moeprof.records.errors import MoeprofError
from moeprof.records.system.files import PAGE, reason
from moeprof.records.units import format_bytes
from moeprof.store.resident import ExpertWeights


@dataclass(frozen=True)
class EntryLayout:
    """Offsets of an expert's tensors in its entry, the same for all experts of a layer; layers may differ."""

    tensors: Mapping[str, tuple[int, ...]]
    """Shapes by name, in the order of the weights."""
    dtype: torch.dtype
    other_dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    """Dtypes of the tensors that have another one, such as the scales of quantised matrices."""

    @classmethod
    def of(cls, weights: ExpertWeights) -> "EntryLayout":
        """The layout of one of these experts."""
        dtypes = {name: whole.dtype for name, whole in weights.items()}
        shapes = {name: tuple(whole.shape[1:]) for name, whole in weights.items()}
        common = weights.first.dtype
        return cls(shapes, common, {name: dtype for name, dtype in dtypes.items() if dtype != common})

    def dtype_of(self, name: str) -> torch.dtype:
        """The dtype of one tensor."""
        return self.other_dtypes.get(name, self.dtype)

    def bytes_of(self, name: str) -> int:
        """Size of one tensor."""
        return prod(self.tensors[name]) * self.dtype_of(name).itemsize

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in the order of the entry: large elements first, and matrices before biases, so that all are aligned."""
        return dict(sorted(self.tensors.items(), key=lambda item: (-self.dtype_of(item[0]).itemsize, -len(item[1]))))

    @property
    def expert_bytes(self) -> int:
        """Size of the weights without padding."""
        return sum(map(self.bytes_of, self.tensors))

    @property
    def entry_bytes(self) -> int:
        """B: the size of the weights, rounded up to whole pages."""
        return -(-self.expert_bytes // PAGE) * PAGE

    def slab(self, num_slots: int, device: str) -> Tensor:
        """Zeros for S entries, (S, B) uint8; on a CPU aligned to pages and counted as private memory of the process."""
        if device == "cpu" and type(torch.empty(0)) is Tensor:  # fake tensors have no memory to align
            try:
                return pages(num_slots * self.entry_bytes).view(num_slots, self.entry_bytes)
            except OSError as error:
                what = f"{num_slots} slots of {format_bytes(self.entry_bytes)}: {reason(error)}"
                raise MoeprofError(what, "Use fewer slots, or a smaller model.") from error
        return torch.zeros(num_slots, self.entry_bytes, dtype=torch.uint8, device=device)

    def weights(self, slab_SB: Tensor) -> ExpertWeights:
        """Views of S entries as stacked weights, which kernels use without a copy."""
        views, first = {}, 0
        for name, shape in self.shapes.items():
            last = first + self.bytes_of(name)
            views[name] = slab_SB[:, first:last].view(self.dtype_of(name)).view(-1, *shape)
            first = last
        return ExpertWeights((name, views[name]) for name in self.tensors)

    def entry(self, into_B: Tensor) -> ExpertWeights:
        """Views of one entry, without a first dimension."""
        return self.weights(into_B[None]).map(lambda whole: whole[0])


def pages(num_bytes: int) -> Tensor:
    """Zeros in whole pages of private memory, (B,) uint8; OSError if there is not as much."""
    return torch.frombuffer(mmap.mmap(-1, num_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)
