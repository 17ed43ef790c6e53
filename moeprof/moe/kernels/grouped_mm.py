"""torch's grouped product: all segments in one call, with bounds that may stay on the device.

P physical experts, R rows, D width, M inputs and N outputs of a matrix.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from moeprof.moe.experts import FFN, ExpertRows
from moeprof.records.errors import UsageError
from moeprof.records.ffn.form import Matrix
from moeprof.store.resident import ExpertWeights

ALIGNMENT_BYTES = 16


def grouped_mm(inputs: ExpertRows, weights: ExpertWeights, ffn: FFN) -> Tensor:
    """Outputs (R, D). On CUDA it does not wait in bfloat16; in other dtypes torch itself reads the bounds on the host.

    UsageError for widths that are not multiples of 16 bytes.
    """
    if not takes(weights):
        found = " and ".join(map(str, sorted(set(widths(weights)))))
        raise UsageError(
            f"kernel grouped_mm: torch's product needs widths of whole 16 bytes (model.dim, model.ffn_dim), not {found}",
            "Use --kernel auto or --kernel loop.",
        )
    rows_RD = inputs.rows_RD
    if not len(rows_RD):
        return rows_RD
    offsets = inputs.offsets
    if not isinstance(offsets, Tensor):
        offsets = torch.tensor(list(offsets), dtype=torch.int32, device=rows_RD.device)
    ends, counts = offsets[1:], offsets.diff()

    def product(rows_RM: Tensor, matrix: Matrix) -> Tensor:
        return grouped_product(rows_RM, weights[matrix.name], weights.get(matrix.bias), ends, counts)

    return ffn(rows_RD, product)


def takes(weights: ExpertWeights) -> bool:
    """Whether torch's product accepts experts of these widths."""
    return all(width * weights.first.element_size() % ALIGNMENT_BYTES == 0 for width in widths(weights))


def widths(weights: ExpertWeights) -> list[int]:
    """Numbers of inputs and outputs of all matrices."""
    return [width for whole in weights.values() if whole.dim() == 3 for width in whole.shape[1:]]


def grouped_product(rows_RM: Tensor, matrices_PMN: Tensor, bias_PN: Tensor | None, ends: Tensor, counts: Tensor) -> Tensor:
    """Every segment times its expert's matrix, plus its bias if there is one, (R, N)."""
    if bias_PN is None:
        return F.grouped_mm(rows_RM, matrices_PMN, offs=ends)
    bias_RN = torch.repeat_interleave(bias_PN, counts, dim=0, output_size=len(rows_RM))
    return F.grouped_mm(rows_RM, matrices_PMN, offs=ends).add_(bias_RN)
