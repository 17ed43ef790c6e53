"""Logged choices for tests: random ones, which are those of tokens of a user."""

from typing import Any

import numpy as np

from moeprof.records.traces.choices import LoggedChoices


def random_experts(tokens: int, layers: int = 2, top_k: int = 2, experts: int = 8, seed: int = 0) -> np.ndarray:
    """Different experts for each token and layer, (tokens, layers, top_k)."""
    draws = np.random.default_rng(seed).random((tokens, layers, experts))
    return np.argsort(draws, axis=2)[:, :, :top_k]


def logged(experts_TLK: np.ndarray, **others: Any) -> LoggedChoices:
    """One sequence, decoded token by token."""
    place_T = np.arange(len(experts_TLK))
    plain = {
        "layers": range(experts_TLK.shape[1]),
        "step_T": place_T,
        "sequence_T": place_T * 0,
        "position_T": place_T,
        "decode_T": place_T >= 0,
    }
    return LoggedChoices(experts_TLK, **(plain | others))
