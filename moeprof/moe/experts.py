"""The experts' parameters, and the kernels that turn expert rows into expert outputs.

P physical experts, R rows (all experts' rows one after another), C rows per expert of a padded buffer, D width, F hidden width.
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
    """P + 1 bounds; a range where all experts have the same number of rows."""


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


def bmm(inputs: ExpertRows, weights: ExpertWeights, activation: Activation) -> Tensor:
    """Batched products over a padded buffer: every expert has the same C rows, needed or not; (R, D)."""
    num_experts, dim = weights.w1_EDF.shape[:2]
    rows_PCD = inputs.rows_RD.view(num_experts, -1, dim)
    hidden_PCF = activation(torch.baddbmm(weights.b1_EF[:, None], rows_PCD, weights.w1_EDF))
    return torch.baddbmm(weights.b2_ED[:, None], hidden_PCF, weights.w2_EFD).view(-1, dim)


KERNELS: dict[str, Kernel] = {"bmm": bmm}


def run_experts(kernel: Kernel, inputs: ExpertRows, store: Store, activation: Activation) -> Tensor:
    """Expert outputs (R, D), in as many waves as the store needs."""
    outputs = [kernel(part, weights, activation) for part, weights in waves_of(inputs, store)]
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def waves_of(inputs: ExpertRows, store: Store) -> Iterator[tuple[ExpertRows, ExpertWeights]]:
    """Each wave's rows beside its weights."""
    for first, weights in store.waves():
        offsets = inputs.offsets[first : first + len(weights.w1_EDF) + 1]
        yield ExpertRows(inputs.rows_RD[int(offsets[0]) : int(offsets[-1])], offsets), weights
