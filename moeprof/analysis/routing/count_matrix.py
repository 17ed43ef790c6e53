"""Load matrices from counts: how often each expert was chosen, without the tokens that chose it.

Shape suffixes: E experts, B steps, N cells that are not 0, K choices of a token.
"""

import numpy as np

from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix


def matrix_of_counts(layer: str, domain: str, counts_EB: Counts, top_k: int) -> LoadMatrix:
    """The matrix of one layer and domain, without drops; a step without a choice has no column.

    The number of tokens of a step is its number of choices divided by `top_k`, rounded up.
    """
    steps_B = np.flatnonzero(counts_EB.sum(axis=0))
    kept_BE = counts_EB[:, steps_B].T
    column_N, expert_N = np.nonzero(kept_BE)
    return LoadMatrix(
        layer=layer,
        domain=domain,
        num_experts=len(counts_EB),
        top_k=top_k,
        steps_B=steps_B,
        tokens_B=-(-kept_BE.sum(axis=1) // top_k),
        dropped_tokens_B=np.zeros(len(steps_B), np.int64),
        dropped_KB=np.zeros((top_k, len(steps_B)), np.int64),
        column_N=column_N,
        expert_N=expert_N,
        count_WN=kept_BE[column_N, expert_N].astype(np.int64)[None],
        dropped_WN=np.zeros((1, len(column_N)), np.int64),
    )
