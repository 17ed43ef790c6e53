"""What a format of placements is, and placements as the maps of physical experts that most tools keep.

L layers, P physical experts, numbered through the ranks in order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Ints
from moeprof.records.errors import OptionError
from moeprof.records.limits import MAX_EXPERTS, MAX_LAYERS, MAX_RANKS
from moeprof.records.placement import Placement
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.layer_map import LayerMap

PlacementFact = Literal["layers", "ranks", "hash"]
"""The numbers of the layers in the model, the number of ranks, and the hash of the weights that a placement was made for."""


@dataclass(frozen=True)
class PlacementFacts:
    """What a user may state about a placement, because its file does not."""

    ranks: int | None = None
    layers: LayerMap | None = None


@dataclass(frozen=True)
class PlacementFormat:
    """One entry of the registry."""

    name: str
    title: str
    """For the list of accepted formats in an error."""
    recognise: Callable[[InputFile], bool]
    read: Callable[[InputFile, PlacementFacts], Placement]
    """ValueError if the file is no placement, or lacks a fact."""
    write: Callable[[Placement, Path, PlacementFacts], None]
    """ValueError if the format cannot hold the placement."""
    keeps: frozenset[PlacementFact] = frozenset()
    """What it states beside the experts of every rank and layer in order."""


def checked_map(values: npt.NDArray[Any] | None, what: str) -> Ints:
    """A map of physical experts, (L, P); ValueError if it is none."""
    if values is None or values.ndim != 2 or not values.size or values.dtype.kind not in "iu":
        raise ValueError(f"{what} is no table of whole numbers with a row per layer")
    if values.shape[0] > MAX_LAYERS or values.shape[1] > MAX_EXPERTS:
        raise ValueError(f"{what} has the shape {values.shape}, more than {MAX_LAYERS:,} layers or {MAX_EXPERTS:,} experts")
    if values.min() < 0 or values.max() >= values.shape[1]:
        raise ValueError(f"{what} has ids that are not from 0 to {values.shape[1] - 1}")
    return values.astype(np.int64)


def placement_of(map_LP: Ints, ranks: int | None, layers: LayerMap | None) -> Placement:
    """The placement of a map over ranks that hold equally many experts; its rows are all layers, or those of the map of layers."""
    if ranks is None:
        raise ValueError("it does not say on how many ranks its experts are: --ranks states it")
    num_physical = map_LP.shape[1]
    if not 1 <= ranks <= MAX_RANKS or num_physical % ranks:
        raise OptionError(
            f"{num_physical} physical experts cannot be divided evenly over {ranks} ranks",
            f"Give --ranks with a divisor of {num_physical}.",
        )
    found = layers.rows(len(map_LP)) if layers else None
    rows, names = (found.rows, found.layers) if found else (range(len(map_LP)), range(len(map_LP)))
    divided = map_LP.reshape(len(map_LP), ranks, -1).tolist()
    return Placement(
        int(map_LP.max()) + 1,
        {str(name): tuple(map(tuple, divided[row])) for row, name in zip(rows, names, strict=True)},
    )


def map_of(placement: Placement) -> Ints:
    """The expert behind every physical expert of the layers in order, (L, P).

    ValueError unless all layers have the same number of ranks, and each rank holds equally many experts.
    """
    sizes = {layer: {len(held) for held in placement.layers[layer]} for layer in placement.layers}
    if uneven := [layer for layer, found in sizes.items() if len(found) > 1]:
        raise ValueError(
            f"layer {uneven[0]}: its ranks hold between {min(sizes[uneven[0]])} and {max(sizes[uneven[0]])} experts"
        )
    shapes = {(len(ranks), len(placement.logical(layer))) for layer, ranks in placement.layers.items()}
    if len(shapes) != 1:
        raise ValueError("its layers have different numbers of ranks or of physical experts" if shapes else "no layers in it")
    return np.array([placement.logical(layer) for layer in in_order(placement)])


def in_order(placement: Placement) -> Sequence[str]:
    """The names of the layers, by number; ValueError if one is no number."""
    if unnumbered := [name for name in placement.layers if not name.isdecimal()]:
        raise ValueError(f"layer {unnumbered[0]!r} has no number")
    return sorted(placement.layers, key=int)
