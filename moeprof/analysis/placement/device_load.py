"""What a placement makes of a layer's steps: the choices that every device serves, and the share of the busiest (paper 6.4).

Choice i of an expert among those of one rank's tokens, in step s, goes to copy (i + s + rank) mod copies: a rank that knows nothing
but its own tokens can follow that, and so can whoever has the traces.

Shape suffixes: E experts, B steps, D devices, S slots of a device, P = D x S slots, L layers.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from moeprof.analysis.routing.correlation import correlation
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.policies.balancing.balancer import History
from moeprof.records.arrays import Floats

CELLS = 2**22
"""Slots x steps that are looked at in one piece."""

QUANTILES = {"p50": 0.5, "p90": 0.9, "worst": 1.0}
"""Over layers."""


def history_of(matrix: LoadMatrix) -> History:
    """Mean shares over steps, and their correlations."""
    sums_E = np.bincount(matrix.expert_N, matrix.shares_N, minlength=matrix.num_experts)
    return History(sums_E / matrix.num_steps, correlation(matrix).values_EE)


def turns(values_P: Counts) -> Counts:
    """How many equal ones stand before each value, (P,); of the experts in all slots: which copy a slot holds."""
    order_P = np.argsort(values_P, kind="stable")
    sorted_P = values_P[order_P]
    turn_P = np.empty_like(values_P)
    turn_P[order_P] = np.arange(len(values_P)) - np.searchsorted(sorted_P, sorted_P)
    return turn_P


def device_counts(matrix: LoadMatrix, slots_DS: Counts) -> Counts:
    """Choices that each device serves, (D, B), whole tokens: those of every rank go to the copies of their expert in turn."""
    slots_P = slots_DS.ravel()
    ranks = [matrix.counts_EB] if len(slots_P) == matrix.num_experts else matrix.counts_by_rank
    copies_P = np.bincount(slots_P)[slots_P][:, None]
    turn_P = turns(slots_P)[:, None]
    served = []
    for steps in np.array_split(np.arange(matrix.num_steps), -(-matrix.num_steps * len(slots_P) // CELLS) or 1):
        counts_PB = np.zeros((len(slots_P), len(steps)), np.int64)
        for rank, counts_EB in enumerate(ranks):
            late_PB = (turn_P - matrix.steps_B[steps] - rank) % copies_P
            counts_PB += (counts_EB[:, steps][slots_P] + copies_P - 1 - late_PB) // copies_P
        served.append(counts_PB.reshape(*slots_DS.shape, -1).sum(axis=1))
    return np.concatenate(served, axis=1)


def top_shares(matrix: LoadMatrix, slots_DS: Counts) -> Floats:
    """Share of the busiest device in every step, (B,)."""
    return np.asarray(device_counts(matrix, slots_DS).max(axis=0) / matrix.choices_B)


def floor_shares(matrix: LoadMatrix, num_devices: int) -> Floats:
    """What no placement without copies can pass: max(1/D, the hottest expert's share), (B,)."""
    return np.maximum(1 / num_devices, matrix.max_share_B)


def load_values(top_B: Floats) -> dict[str, float]:
    """The largest of all steps (out-of-memory proxy) and the mean over steps (latency proxy)."""
    return {"max_load": float(top_B.max()), "avg_max_load": float(top_B.mean())}


def over_layers(layers: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of every metric over layers under its own name, and its quantiles beside it."""
    found = {}
    for name in layers[0]:
        values_L = [values[name] for values in layers]
        found[name] = float(np.mean(values_L))
        found |= {f"{name}_{label}": float(np.quantile(values_L, level)) for label, level in QUANTILES.items()}
    return found
