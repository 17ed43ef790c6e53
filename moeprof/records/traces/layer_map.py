"""The layers of a model that have experts, so that the rows of a foreign trace get their absolute numbers.

T tokens, L layers of an array, K choices.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.records.limits import MAX_LAYERS

HOW = "state them by --model-config CONFIG or --layers MAP"


@dataclass(frozen=True)
class LayerMap:
    """MoE layers by absolute number, ascending."""

    moe_layers: tuple[int, ...]
    num_layers: int | None = None
    """All layers of the model, dense ones too; None if unknown."""

    @classmethod
    def parse(cls, text: str) -> "LayerMap":
        """The layers in a list such as `1-47` or `0,2,4-6`; ValueError if it is none."""
        found: list[int] = []
        for part in text.split(","):
            match = re.fullmatch(r"\s*(\d{1,5})(?:-(\d{1,5}))?\s*", part)
            if not match:
                raise ValueError(f"{part.strip()[:24]!r} is neither a layer nor a range of layers")
            first, last = int(match[1]), int(match[2] or match[1])
            if not first <= last < MAX_LAYERS:
                raise ValueError(f"{part.strip()} is not a range of layers below {MAX_LAYERS:,}")
            found += range(first, last + 1)
        if len(set(found)) < len(found):
            raise ValueError("a layer occurs twice")
        return cls(tuple(sorted(found)))

    def rows(self, count: int) -> "RowMap":
        """Which rows of an array with `count` layers have experts, and their numbers; ValueError if the count fits neither.

        An array has either a row per MoE layer, or a row per layer of the model. Without `num_layers` the model has at least the
        layers up to the last MoE layer, and any number of dense ones behind it.
        """
        if count == len(self.moe_layers):
            return RowMap(tuple(range(count)), self.moe_layers)
        if count == self.num_layers or (self.num_layers is None and count > max(self.moe_layers)):
            return RowMap(self.moe_layers, self.moe_layers)
        all_layers = f" of {self.num_layers}" if self.num_layers is not None else ""
        raise ValueError(f"it has {count} layers, but the model has {len(self.moe_layers)} MoE layers{all_layers}")


@dataclass(frozen=True)
class RowMap:
    """The rows of an array that are MoE layers, and the absolute number of each."""

    rows: tuple[int, ...]
    layers: tuple[int, ...]


def named(layers: Sequence[int]) -> list[str]:
    """Names of layers in a trace."""
    return [str(layer) for layer in layers]


def check_numbers(layers: Sequence[int], stated: LayerMap | None) -> None:
    """ValueError if one of a trace's absolute layers has no experts by the stated ones."""
    if stated is not None and (foreign := sorted({*layers} - {*stated.moe_layers})):
        raise ValueError(f"layer {foreign[0]} has choices, but no experts by the stated layers: {HOW}")


def moe_layers_of(
    experts_TLK: npt.NDArray[np.integer], stated: LayerMap | None
) -> tuple[npt.NDArray[np.integer], tuple[int, ...]]:
    """The MoE layers of an array, (T, MoE layers, K), and their absolute numbers.

    Engines fill dense layers of an array of all layers with expert 0 or -1. ValueError if the layers are not stated or do not fit,
    if a layer that is stated as dense has other choices, or if one with experts has those of a dense one.
    """
    num_layers, top_k = experts_TLK.shape[1:]
    empty_L = (experts_TLK <= 0).all(axis=(0, 2)) & ((top_k > 1) | (experts_TLK < 0).all(axis=(0, 2)))
    if empty_L.all() and len(experts_TLK):
        raise ValueError("every choice is expert 0 or -1, so nothing was recorded")
    if stated is None:
        dense = f"; layer {int(np.flatnonzero(empty_L)[0])} of them is empty, as if it were dense" if empty_L.any() else ""
        raise ValueError(f"its {num_layers} layers may be all layers of the model or those with experts{dense}: {HOW}")
    found = stated.rows(num_layers)
    dense_rows = np.setdiff1d(np.arange(num_layers), found.rows)
    if len(wrong := [row for row in dense_rows if (experts_TLK[:, row] > 0).any()]):
        raise ValueError(f"layer {wrong[0]} has choices, but no experts by the stated layers: {HOW}")
    if empty := [layer for row, layer in zip(found.rows, found.layers, strict=True) if empty_L[row]]:
        raise ValueError(f"layer {empty[0]} has only choices of expert 0 or -1, as if it were dense: {HOW}")
    return experts_TLK[:, list(found.rows)], found.layers
