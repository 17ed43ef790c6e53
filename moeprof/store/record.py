"""How one expert lies in memory and on disk: a record of its matrices and biases, padded to whole pages.

Pages, because direct I/O moves nothing else. S slots, D width, F hidden width, B bytes of a record.
"""

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from moeprof.records.errors import MoeprofError
from moeprof.records.files import PAGE, reason
from moeprof.records.units import format_bytes
from moeprof.store.resident import ExpertWeights


@dataclass(frozen=True)
class RecordLayout:
    """Where the tensors of an expert lie in its record; all experts of a model have the same."""

    tensors: Mapping[str, tuple[int, ...]]
    """Shapes by name, in the order of the weights."""
    dtype: torch.dtype

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by name, in the order of the record: matrices before biases, so that matrices are aligned as kernels need it."""
        return dict(sorted(self.tensors.items(), key=lambda item: -len(item[1])))

    @property
    def expert_bytes(self) -> int:
        """Of the weights alone."""
        return sum(map(prod, self.shapes.values())) * self.dtype.itemsize

    @property
    def record_bytes(self) -> int:
        """B: rounded up to whole pages."""
        return -(-self.expert_bytes // PAGE) * PAGE

    def slab(self, num_slots: int, device: str) -> Tensor:
        """Zeros for S records, (S, B) uint8; on a CPU they begin at a page, in memory that counts as the process's own."""
        if device == "cpu" and type(torch.empty(0)) is Tensor:  # fake tensors have no memory to lie at a page
            try:
                memory = mmap.mmap(-1, num_slots * self.record_bytes, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            except OSError as error:
                what = f"{num_slots} slots of {format_bytes(self.record_bytes)}: {reason(error)}"
                raise MoeprofError(what, "Use fewer slots, or a smaller model.") from error
            return torch.frombuffer(memory, dtype=torch.uint8).view(num_slots, self.record_bytes)
        return torch.zeros(num_slots, self.record_bytes, dtype=torch.uint8, device=device)

    def weights(self, slab_SB: Tensor) -> ExpertWeights:
        """Views of S records as stacked weights, which kernels take as they are."""
        elements_SN = slab_SB.view(self.dtype)
        views, first = {}, 0
        for name, shape in self.shapes.items():
            views[name] = elements_SN[:, first : first + prod(shape)].view(-1, *shape)
            first += prod(shape)
        return ExpertWeights((name, views[name]) for name in self.tensors)
