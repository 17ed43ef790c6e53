"""Device load under a placement: the choices that every device serves in a step, and the share of the busiest device (paper 6.4).

The replica choice is a rotation: choice i of an expert among those of one rank's tokens, in step s, goes to copy
(i + s + rank) mod copies. A rank needs only its own tokens to apply it, and a replay needs only the traces.

Shape suffixes: E experts, B steps, D devices, S physical experts of a device, P = D x S physical experts, L layers.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from moeprof.analysis.routing.correlation import correlation
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.policies.balancing.balancer import History
from moeprof.records.arrays import Floats

CELLS = 2**22
"""The largest number of physical experts x steps that are counted at once."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "worst": 1.0}
"""The quantiles that are reported over layers."""


def history_of(matrix: LoadMatrix) -> History:
    """The mean share of every expert over steps, its standard deviation, and the correlations of shares."""
    means_E, squares_E = (
        np.bincount(matrix.expert_N, values_N, minlength=matrix.num_experts) / matrix.num_steps
        for values_N in (matrix.shares_N, matrix.shares_N**2)
    )
    deviation_E = np.sqrt(np.maximum(squares_E - means_E**2, 0))
    return History(means_E, correlation(matrix).values_EE, deviation_E, float(matrix.choices_B.mean()))


def copy_numbers(values_P: Counts) -> Counts:
    """The number of equal values before each value, (P,): for physical experts, which copy of its expert each one is.

    experts 3, 1, 3, 3, 1  ->  copies 0, 0, 1, 2, 1
    """
    order_P = np.argsort(values_P, kind="stable")
    sorted_P = values_P[order_P]
    copy_P = np.empty_like(values_P)
    copy_P[order_P] = np.arange(len(values_P)) - np.searchsorted(sorted_P, sorted_P)
    return copy_P


def device_counts(matrix: LoadMatrix, slots_DS: Counts) -> Counts:
    """Choices that each device serves in each step, (D, B), where row d of `slots_DS` lists the experts of device d.

    Of n choices, copy c of m serves those with (i + step + rank) mod m = c. The first such i is (c - step - rank) mod m = `late`, and
    there are ceil((n - late) / m) of them. With slots_DS [[0, 1], [0, 2]] and 5, 2, 1 choices of experts 0, 1, 2 of rank 0:

        step 0: expert 0 gives 3 to device 0 and 2 to device 1; the devices serve 3 + 2 = 5 and 2 + 1 = 3
        step 1: expert 0 gives 2 to device 0 and 3 to device 1; the devices serve 2 + 2 = 4 and 3 + 1 = 4
    """
    slots_P = slots_DS.ravel()
    ranks = [matrix.counts_EB] if len(slots_P) == matrix.num_experts else matrix.counts_by_rank
    copies_P = np.bincount(slots_P)[slots_P][:, None]
    copy_P = copy_numbers(slots_P)[:, None]
    served = []
    for steps in np.array_split(np.arange(matrix.num_steps), -(-matrix.num_steps * len(slots_P) // CELLS) or 1):
        counts_PB = np.zeros((len(slots_P), len(steps)), np.int64)
        for rank, counts_EB in enumerate(ranks):
            late_PB = (copy_P - matrix.steps_B[steps] - rank) % copies_P
            counts_PB += (counts_EB[:, steps][slots_P] + copies_P - 1 - late_PB) // copies_P
        served.append(counts_PB.reshape(*slots_DS.shape, -1).sum(axis=1))
    return np.concatenate(served, axis=1)


def top_shares(matrix: LoadMatrix, slots_DS: Counts) -> Floats:
    """The share of a step's choices that the busiest device serves, (B,)."""
    return np.asarray(device_counts(matrix, slots_DS).max(axis=0) / matrix.choices_B)


def floor_shares(matrix: LoadMatrix, num_devices: int) -> Floats:
    """The lowest share of the busiest device without copies: max(1/D, the hottest expert's share), (B,)."""
    return np.maximum(1 / num_devices, matrix.max_share_B)


def load_values(top_B: Floats) -> dict[str, float]:
    """The maximum over steps, a proxy for running out of memory, and the mean over steps, a proxy for latency."""
    return {"max_load": float(top_B.max()), "avg_max_load": float(top_B.mean())}


def over_layers(layers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every metric over layers under its own name, and its quantiles as `NAME_p50` and so on."""
    found = {}
    for name in layers[0]:
        values_L = [values[name] for values in layers]
        found[name] = float(np.mean(values_L))
        found |= {f"{name}_{label}": float(np.quantile(values_L, level)) for label, level in QUANTILES.items()}
    return found
