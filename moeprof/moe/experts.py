"""The experts' parameters, and the seam where a kernel turns expert rows into expert outputs.

P physical experts, R rows (all experts' rows one after another), D width, F hidden width.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moeprof.store.resident import ExpertWeights, Store

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: dict[str, Activation] = {"gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True, eq=False)
class ExpertRows:
    """Rows grouped by physical expert: those of expert p are `offsets[p]` to `offsets[p + 1]`."""

    rows_RD: Tensor
    offsets: range | list[int] | Tensor
    """P + 1 bounds: a range where all experts have the same number of rows; a tensor (int32) may live on a device."""

    @property
    def bounds(self) -> list[int]:
        """The bounds on the host, which waits for a device that holds them."""
        return self.offsets.tolist() if isinstance(self.offsets, Tensor) else list(self.offsets)


Kernel = Callable[[ExpertRows, ExpertWeights, Activation], Tensor]


class Experts(nn.Module):
    """Stacked two-matrix FFNs."""

    def __init__(self, num_experts: int, dim: int, ffn_dim: int) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(num_experts, dim, ffn_dim))
        self.b1 = nn.Parameter(torch.empty(num_experts, ffn_dim))
        self.w2 = nn.Parameter(torch.empty(num_experts, ffn_dim, dim))
        self.b2 = nn.Parameter(torch.empty(num_experts, dim))

    @property
    def weights(self) -> ExpertWeights:
        """Views of all experts."""
        return ExpertWeights(self.w1, self.b1, self.w2, self.b2)


def run_experts(kernel: Kernel, inputs: ExpertRows, store: Store, activation: Activation) -> Tensor:
    """Expert outputs (R, D), in as many waves as the store needs."""
    outputs = [kernel(part, weights, activation) for part, weights in waves_of(inputs, store)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def waves_of(inputs: ExpertRows, store: Store) -> Iterator[tuple[ExpertRows, ExpertWeights]]:
    """Each wave's rows beside its weights; bounds count from the wave's own first row."""
    for first, weights in store.waves():
        last = first + len(weights.w1_EDF)
        if last - first == len(inputs.offsets) - 1:
            yield inputs, weights
            continue
        bounds, whole = inputs.bounds[first : last + 1], inputs.offsets
        rows_RD = inputs.rows_RD[bounds[0] : bounds[-1]]
        if isinstance(whole, range):
            yield ExpertRows(rows_RD, range(0, len(rows_RD) + 1, whole.step)), weights
        else:
            yield ExpertRows(rows_RD, [bound - bounds[0] for bound in bounds]), weights
