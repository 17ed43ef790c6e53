"""Which layers of an array have experts, where engines fill those of dense layers with expert 0 or -1.

T tokens, L layers of an array, K choices.
"""

import numpy as np
import numpy.typing as npt

from moeprof.records.errors import OptionError
from moeprof.records.traces.layer_map import CORRECT, HOW, LayerMap

MANY = 4
"""Tokens with one choice each that do not all choose expert 0 in a layer that has experts: fewer may well do so."""


def moe_layers_of(
    experts_TLK: npt.NDArray[np.integer], stated: LayerMap | None
) -> tuple[npt.NDArray[np.integer], tuple[int, ...]]:
    """The MoE layers of an array, (T, MoE layers, K), and their absolute numbers.

    Engines fill dense layers of an array of all layers with expert 0 or -1. ValueError if the layers are not stated or do not fit,
    if a layer that is stated as dense has other choices, or if one with experts has those of a dense one.
    """
    num_tokens, num_layers, top_k = experts_TLK.shape
    many = top_k > 1 or num_tokens >= MANY
    empty_L = (experts_TLK <= 0).all(axis=(0, 2)) & (many | (experts_TLK < 0).all(axis=(0, 2)))
    if empty_L.all() and len(experts_TLK):
        raise ValueError("every choice is expert 0 or -1, so nothing was recorded")
    if stated is None:
        dense = f"; layer {int(np.flatnonzero(empty_L)[0])} of them is empty, as if it were dense" if empty_L.any() else ""
        raise ValueError(f"its {num_layers} layers may be all layers of the model or those with experts{dense}: {HOW}")
    found = stated.rows(num_layers)
    dense_rows = np.setdiff1d(np.arange(num_layers), found.rows)
    if len(wrong := [row for row in dense_rows if (experts_TLK[:, row] > 0).any()]):
        raise OptionError(f"layer {wrong[0]} has choices, but no experts by the stated layers", CORRECT)
    if empty := [layer for row, layer in zip(found.rows, found.layers, strict=True) if empty_L[row]]:
        raise OptionError(
            f"layer {empty[0]} has only choices of expert 0 or -1, as if it were dense, but is stated to have experts",
            "Correct --layers, --model-config or --top-k.",
        )
    return experts_TLK[:, list(found.rows)], found.layers
