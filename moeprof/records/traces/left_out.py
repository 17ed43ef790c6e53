"""Rows of a log that are not tokens of a user: how they are found, left out and counted.

A rule leaves rows out only if no token of a user can have left them, as its docstring explains. T tokens, L layers, K choices.
"""

from dataclasses import dataclass

import numpy as np

from moeprof.records.arrays import Flags
from moeprof.records.traces.choices import NO_EXPERT, LoggedChoices
from moeprof.records.traces.import_options import ImportOptions

MIN_WARMUP, LONG_WARMUP = 16, 256
"""Rows of warm-up at the least: if they are whole requests, and if they are the beginning of one."""

MIN_REPEATED = 256
"""Choices that warm-up repeats at the least, if its weights are not recorded."""


@dataclass(frozen=True)
class LeftOut:
    """Which tokens are left out, and why; each flag is (T,), and a token has at most one."""

    absent_T: Flags
    """No choice in any layer."""
    padding_T: Flags
    warmup_T: Flags


def left_out(choices: LoggedChoices, options: ImportOptions) -> LeftOut:
    """The tokens that are no tokens of a user; padding and warm-up that the options keep are none of them."""
    absent_T = (choices.experts_TLK == NO_EXPERT).all(axis=(1, 2))
    nothing_T = np.zeros(len(choices), bool)
    warmup_T = nothing_T if options.keep_warmup else warmup(choices) & ~absent_T
    padding_T = zeros(choices) if options.keep_padding else zeros(choices) | repeated(choices)
    return LeftOut(absent_T, padding_T & ~absent_T & ~warmup_T, warmup_T)


def warmup(choices: LoggedChoices) -> Flags:
    """The first rows of a log if they are all alike: the passes in which an engine measures its memory before it serves, (T,).

    They are at least MIN_WARMUP rows that make up whole requests, or LONG_WARMUP rows of a longer one; and with the same choices in
    every layer they have the same weights, or repeat MIN_REPEATED choices if weights are unknown. Two tokens of a text hardly ever
    agree in all layers, and never in their weights: a repeated token has other positions.
    """
    alike_T = (choices.experts_TLK == choices.experts_TLK[:1]).all(axis=(1, 2))
    known = choices.weights_TLK is not None and not np.isnan(choices.weights_TLK[:1]).any()
    if known and choices.weights_TLK is not None:
        alike_T &= (choices.weights_TLK == choices.weights_TLK[:1]).all(axis=(1, 2))
    rows = len(alike_T) if alike_T.all() else int(np.argmin(alike_T))
    ends = np.flatnonzero(np.append(np.diff(choices.sequence_T) != 0, True)) + 1
    if rows < LONG_WARMUP:
        rows = int(ends[ends <= rows].max(initial=0))
    width = int(np.prod(choices.experts_TLK.shape[1:]))
    enough = rows >= MIN_WARMUP and (known or (rows - 1) * width >= MIN_REPEATED)
    return np.asarray(np.arange(len(choices)) < (rows if enough else 0))


def repeated(choices: LoggedChoices) -> Flags:
    """Rows that repeat the one before them in step, sequence, position and all choices, (T,), as a CUDA graph fills its batch.

    A sequence has one token at a position, so the first row may be a token, and the others are none. The first is none either if it
    is a decoded token 0 (or unknown) at position 0 beside tokens at others: what was decoded has a prompt before it.
    """
    same_T = np.zeros(len(choices), bool)
    keys = (choices.step_T, choices.sequence_T, choices.position_T)
    same_T[1:] = np.all([key_T[1:] == key_T[:-1] for key_T in keys], axis=0)
    at = np.flatnonzero(same_T)
    same_T[at] = (choices.experts_TLK[at] == choices.experts_TLK[at - 1]).all(axis=(1, 2))
    first = np.flatnonzero(~same_T[:-1] & same_T[1:])
    tokens_T = np.zeros(len(choices)) if choices.token_id_T is None else choices.token_id_T
    later = np.isin(choices.step_T[first], choices.step_T[choices.position_T > 0])
    idle = choices.decode_T[first] & (choices.position_T[first] == 0) & (tokens_T[first] <= 0) & later
    same_T[first[idle]] = True
    return same_T


def zeros(choices: LoggedChoices) -> Flags:
    """Rows behind the last choice of a sequence that are 0 in all layers and slots, (T,): memory that the engine never filled.

    A token has K different experts, so with more than one choice they are none.
    """
    empty_T = (choices.experts_TLK == 0).all(axis=(1, 2)) & (choices.experts_TLK.shape[2] > 1)
    if not empty_T.any():
        return np.asarray(empty_T)
    _, place_T = np.unique(choices.sequence_T, return_inverse=True)
    last = np.full(place_T.max() + 1, -1)
    np.maximum.at(last, place_T[~empty_T], np.flatnonzero(~empty_T))
    return np.asarray(np.arange(len(choices)) > last[place_T])
