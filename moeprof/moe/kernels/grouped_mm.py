"""torch's own grouped product: all segments in one call, whose bounds may stay on the device.

P physical experts, R rows, D width, F hidden width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.moe.experts import Activation, ExpertRows
from moeprof.records.errors import UsageError
from moeprof.store.resident import ExpertWeights

ALIGNMENT_BYTES = 16


def grouped_mm(inputs: ExpertRows, weights: ExpertWeights, activation: Activation) -> Tensor:
    """(R, D). On CUDA nothing waits in bfloat16; in other dtypes torch itself reads the bounds on the host.

    UsageError for widths that are no multiples of 16 bytes.
    """
    if not takes(weights):
        dim, ffn_dim = weights.w1_EDF.shape[1:]
        raise UsageError(
            f"kernel grouped_mm: torch's product needs widths of whole 16 bytes, not model.dim {dim} and model.ffn_dim {ffn_dim}",
            "Use --kernel auto or --kernel loop.",
        )
    rows_RD = inputs.rows_RD
    if not len(rows_RD):
        return rows_RD
    offsets = inputs.offsets
    if not isinstance(offsets, Tensor):
        offsets = torch.tensor(list(offsets), dtype=torch.int32, device=rows_RD.device)
    ends, counts = offsets[1:], offsets.diff()
    hidden_RF = activation(product(rows_RD, weights.w1_EDF, weights.b1_EF, ends, counts))
    return product(hidden_RF, weights.w2_EFD, weights.b2_ED, ends, counts)


def takes(weights: ExpertWeights) -> bool:
    """Whether torch's product takes experts of these widths."""
    return all(width * weights.w1_EDF.element_size() % ALIGNMENT_BYTES == 0 for width in weights.w1_EDF.shape[1:])


def product(rows_RM: Tensor, weights_PMN: Tensor, bias_PN: Tensor, ends: Tensor, counts: Tensor) -> Tensor:
    """Every segment times its expert's matrix, plus its bias, (R, N)."""
    bias_RN = torch.repeat_interleave(bias_PN, counts, dim=0, output_size=len(rows_RM))
    return F.grouped_mm(rows_RM, weights_PMN, offs=ends).add_(bias_RN)
