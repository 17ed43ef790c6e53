"""A loop over the experts' own segments of rows, two experts at a time.

One small product keeps one core busy, a batch of two keeps two. Experts of similar load are paired. For example, with loads
of 1, 8 and 1 rows the segments are rows 0, 1-8 and 9. Experts 0 and 2 are paired, in windows of one row that begin at 0 and 9;
expert 1 remains and runs alone. With loads of 0, 8 and 1 rows the pair is 1 and 2: the window of expert 2 has 8 rows as well,
begins at 9 - 8 = 1 instead of 8 to stay within the 9 rows, and only its last row is kept.

R rows, N rows of one segment, M rows of the longer one of two, D width.
"""

from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor

from moeprof.moe.experts import FFN, ExpertRows
from moeprof.moe.kernels.bmm import batched_product
from moeprof.moe.reference import run_expert
from moeprof.store.resident import ExpertWeights


def loop(inputs: ExpertRows, weights: ExpertWeights, ffn: FFN) -> Tensor:
    """Outputs (R, D); an expert without rows costs nothing. It waits for bounds that are on a device."""
    bounds, rows_RD = inputs.bounds, inputs.rows_RD
    outputs_RD = torch.empty_like(rows_RD)
    for one, other in pairs_by_load(bounds):
        if one == other:
            first, last = bounds[one], bounds[one + 1]
            outputs_RD[first:last] = run_one(rows_RD[first:last], weights, one, ffn)
            continue
        length = max(bounds[expert + 1] - bounds[expert] for expert in (one, other))
        starts = [min(bounds[expert], len(rows_RD) - length) for expert in (one, other)]
        found_2MD = run_pair(windows(rows_RD, starts, length), two_experts(weights, one, other), ffn)
        for expert, start, found_MD in zip((one, other), starts, found_2MD, strict=True):
            first, last = bounds[expert], bounds[expert + 1]
            outputs_RD[first:last] = found_MD[first - start : last - start]
    return outputs_RD


def pairs_by_load(bounds: list[int]) -> Iterator[tuple[int, int]]:
    """Experts that have rows, two of similar load at a time, the lower number first; the last one may be paired with itself."""
    active = sorted((last - first, expert) for expert, (first, last) in enumerate(pairwise(bounds)) if first < last)
    for index in range(0, len(active), 2):
        together = [expert for _, expert in active[index : index + 2]]
        yield min(together), max(together)


def windows(rows_RD: Tensor, starts: list[int], length: int) -> Tensor:
    """Two ranges of rows as one view (2, M, D); the window of a shorter segment includes rows of its neighbours."""
    dim = rows_RD.shape[1]
    return rows_RD.as_strided(
        (2, length, dim), ((starts[1] - starts[0]) * dim, dim, 1), rows_RD.storage_offset() + starts[0] * dim
    )


def two_experts(weights: ExpertWeights, one: int, other: int) -> ExpertWeights:
    """Views of the weights of two experts, (2, ...)."""
    return weights.map(lambda whole: whole[one : other + 1 : other - one])


def run_pair(rows_2MD: Tensor, two: ExpertWeights, ffn: FFN) -> Tensor:
    """Outputs of two experts, (2, M, D)."""
    return ffn(rows_2MD, batched_product(two))


def run_one(rows_ND: Tensor, weights: ExpertWeights, expert: int, ffn: FFN) -> Tensor:
    """Outputs of one expert, (N, D)."""
    return run_expert(rows_ND, weights.map(lambda whole: whole[expert]), ffn)
