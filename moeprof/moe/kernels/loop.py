"""A loop over the experts' own segments of rows, two experts at a time.

One small product keeps one core busy, a batch of two keeps two. Experts of similar load go together. R rows, N rows of one
segment, M rows of the longer one of two, D width, F hidden width.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from moeprof.moe.experts import Activation, ExpertRows
from moeprof.store.resident import ExpertWeights


def loop(inputs: ExpertRows, weights: ExpertWeights, activation: Activation) -> Tensor:
    """(R, D); an expert without rows costs nothing. Bounds must be on the host: on CUDA it waits for them."""
    bounds, rows_RD = inputs.bounds, inputs.rows_RD
    outputs_RD = torch.empty_like(rows_RD)
    for one, other in couples(bounds):
        if one == other:
            first, last = bounds[one], bounds[one + 1]
            outputs_RD[first:last] = alone(rows_RD[first:last], ExpertWeights(*(whole[one] for whole in weights)), activation)
            continue
        length = max(bounds[expert + 1] - bounds[expert] for expert in (one, other))
        starts = [min(bounds[expert], len(rows_RD) - length) for expert in (one, other)]
        both = ExpertWeights(*(whole[one : other + 1 : other - one] for whole in weights))
        found_2MD = together(windows(rows_RD, starts, length), both, activation)
        for expert, start, found_MD in zip((one, other), starts, found_2MD, strict=True):
            first, last = bounds[expert], bounds[expert + 1]
            outputs_RD[first:last] = found_MD[first - start : last - start]
    return outputs_RD


def couples(bounds: list[int]) -> Iterator[tuple[int, int]]:
    """Experts that have rows, two of similar load at a time, the lower number first; the last one may be coupled to itself."""
    active = sorted((last - first, expert) for expert, (first, last) in enumerate(pairwise(bounds)) if first < last)
    for index in range(0, len(active), 2):
        together = [expert for _, expert in active[index : index + 2]]
        yield min(together), max(together)


def windows(rows_RD: Tensor, starts: list[int], length: int) -> Tensor:
    """Two stretches of rows as one view (2, M, D); the shorter segment's sees rows of its neighbours, computed for nothing."""
    dim = rows_RD.shape[1]
    return rows_RD.as_strided(
        (2, length, dim), ((starts[1] - starts[0]) * dim, dim, 1), rows_RD.storage_offset() + starts[0] * dim
    )


def together(rows_2MD: Tensor, two: ExpertWeights, activation: Activation) -> Tensor:
    """Outputs of two experts, (2, M, D)."""
    hidden_2MF = activation(torch.baddbmm(two.b1_EF[:, None], rows_2MD, two.w1_EDF))
    return torch.baddbmm(two.b2_ED[:, None], hidden_2MF, two.w2_EFD)


def alone(rows_ND: Tensor, one: ExpertWeights, activation: Activation) -> Tensor:
    """Outputs of one expert, (N, D), whose weights come without their first dimension."""
    return torch.addmm(one.b2_ED, activation(torch.addmm(one.b1_EF, rows_ND, one.w1_EDF)), one.w2_EFD)
