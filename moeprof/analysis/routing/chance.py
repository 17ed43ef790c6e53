"""What the numbers of a load matrix would be by chance, beside which they say something.

By chance means that every step draws its experts evenly and independently of all others. Shape suffixes: E experts, B steps,
N cells, T transitions from one step to the next, P pairs of set sizes, X sizes of an intersection.
"""

import numpy as np

from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.records.arrays import Floats

LARGE = 1e7
"""From this number on, products of up to some thousand consecutive numbers are computed from the middle one."""

CHUNK = 2**20
"""Cells of the table (P, X) that are computed at a time."""


def chance_metrics(matrix: LoadMatrix) -> dict[str, float]:
    """`load_entropy`, `active_by_chance`, and the values of locality by chance that the matrix has steps for."""
    metrics = {
        "load_entropy": entropy(matrix.counts_E),
        "active_by_chance": float(expected_distinct(matrix.num_experts, matrix.top_k, matrix.tokens_B).mean()),
    }
    if matrix.num_steps > 1:
        metrics["active_jaccard_by_chance"] = jaccard_by_chance(matrix.active_B, matrix.num_experts)
        metrics["active_overlap_shuffled"] = overlap_shuffled(matrix)
    if (distance := reuse_distance_by_chance(matrix.active_B / matrix.num_experts)) is not None:
        metrics["reuse_distance_by_chance"] = distance
    return metrics


def entropy(counts_E: Counts) -> float:
    """The entropy of the shares of E experts in nats; 0 if one expert has all choices."""
    shares = counts_E[counts_E > 0] / counts_E.sum()
    return max(0.0, float(-(shares * np.log(shares)).sum()))


def expected_distinct(num_experts: int, top_k: int, tokens: Counts) -> Floats:
    """Distinct experts of some tokens, in the shape of `tokens`, if each chooses any `top_k` of all experts: E (1 - (1 - k / E)^tokens)."""
    return np.asarray(num_experts * (1 - (1 - top_k / num_experts) ** tokens.astype(np.float64)))


def expected_shuffled(counts_E: Counts, num_tokens: int, drawn: int) -> float:
    """Distinct experts of `drawn` tokens, taken at random out of `num_tokens` of which counts_E choose each expert."""
    if drawn == 1:
        return int(counts_E.sum()) / num_tokens
    others_E = np.maximum(num_tokens - counts_E, 0).astype(np.float64)
    without_E = np.where(
        others_E < drawn, 0, np.exp(log_falling(others_E, drawn) - log_falling(np.array([float(num_tokens)]), drawn))
    )
    return float((1 - without_E).sum())


def log_falling(start: Floats, factors: int) -> Floats:
    """The logarithm of start (start - 1) ... with this number of factors, in the shape of `start`; of no use where start < factors.

    For large numbers the difference of two gamma functions loses its digits; there the factors are close to their middle.
    """
    from scipy.special import gammaln

    middle = np.maximum(start - (factors - 1) / 2, 1)
    near = factors * np.log(middle) - factors * (factors * factors - 1) / (24 * middle * middle)
    exact = gammaln(start + 1) - gammaln(np.maximum(start - factors, 0) + 1)
    return np.asarray(np.where(start < LARGE, exact, near))


def jaccard_by_chance(active_B: Counts, num_experts: int) -> float:
    """The Jaccard index of consecutive steps if each drew its active experts evenly: the mean over a hypergeometric distribution."""
    one_T, other_T = active_B[1:], active_B[:-1]
    pair_T = np.minimum(one_T, other_T) * (num_experts + 1) + np.maximum(one_T, other_T)
    keys, times_P = np.unique(pair_T, return_counts=True)
    small_P, large_P = np.divmod(keys, num_experts + 1)
    rows = max(1, CHUNK // (int(small_P.max()) + 1))
    parts = [
        mean_jaccard(small_P[start : start + rows], large_P[start : start + rows], num_experts)
        for start in range(0, len(keys), rows)
    ]
    return float(np.average(np.concatenate(parts), weights=times_P))


def mean_jaccard(small_P: Counts, large_P: Counts, num_experts: int) -> Floats:
    """The expected Jaccard index of two random sets of these sizes (a <= b), (P,)."""
    from scipy.special import gammaln

    common_X = np.arange(int(small_P.max()) + 1)
    a, b, x = small_P[:, None], large_P[:, None], common_X[None]
    possible = (x <= a) & (x >= a + b - num_experts)
    log_factorial = gammaln(np.arange(num_experts + 1) + 1.0)

    def log_choose(n: Counts, k: Counts) -> Floats:
        of, chosen = np.broadcast_arrays(n, np.clip(k, 0, n))
        return np.asarray(log_factorial[of] - log_factorial[chosen] - log_factorial[of - chosen])

    log_p = log_choose(b, x) + log_choose(num_experts - b, a - x) - log_choose(np.full_like(a, num_experts), a)
    return np.asarray(np.where(possible, np.exp(log_p) * x / np.maximum(a + b - x, 1), 0).sum(axis=1))


def overlap_shuffled(matrix: LoadMatrix) -> float:
    """The mean overlap of two different steps of the matrix, whatever their order: loads stay, only the order is lost."""
    steps_E = np.bincount(matrix.expert_N, minlength=matrix.num_experts)
    others_N = (steps_E[matrix.expert_N] - 1) / matrix.active_B[matrix.column_N]
    return float(others_N.sum()) / (matrix.num_steps * (matrix.num_steps - 1))


def reuse_distance_by_chance(share_B: Floats) -> float | None:
    """The lower median of the steps until an expert returns, if every expert is active in step b with the chance share_B[b].

    Only returns within the steps count, as in a trace that ends. None if none is expected.
    """
    before_B = 1 - np.concatenate([[1.0], np.cumprod(1 - share_B)[:-1]])
    half, found = float((share_B * before_B).sum()) / 2, 0.0
    if not half:
        return None
    absent = np.ones(len(share_B) - 1)  # the chance that an expert of step b does not return before step b + distance
    for distance in range(1, len(share_B)):
        found += float((share_B[:-distance] * absent * share_B[distance:]).sum())
        if found >= half * (1 - 1e-12):
            return float(distance)
        absent = absent[:-1] * (1 - share_B[distance:-1])
    return float(len(share_B) - 1)
