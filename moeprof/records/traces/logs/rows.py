"""From rows, each of which is one token of one layer, to choices by token, layer and slot.

R rows, T tokens, L layers, K choices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Flags
from moeprof.records.limits import MAX_LAYERS
from moeprof.records.system.inputs import check_memory
from moeprof.records.traces.choices import NO_EXPERT, Ids, LoggedChoices


@dataclass(frozen=True)
class ChoiceRows:
    """Rows in the order of the log."""

    sequence_R: Ids
    position_R: Ids
    decode_R: Flags
    layer_R: Ids
    experts_RK: Ids
    weights_RK: npt.NDArray[np.floating] | None = None
    token_id_R: Ids | None = None
    dropped_RK: Flags | None = None

    def __len__(self) -> int:
        return len(self.layer_R)


def choices_of(rows: ChoiceRows, layer_names: Sequence[str] | None = None) -> LoggedChoices:
    """The tokens by sequence, prompt before decoded ones, and position; a prompt is one step, and each decoded token a step.

    ValueError if a token has two rows in one layer.
    """
    if not len(rows):
        raise ValueError("no choices in it")
    keys = (rows.sequence_R, rows.decode_R, rows.position_R)
    order = np.lexsort(keys[::-1])
    new_R = np.append(True, np.any([np.diff(key[order].astype(np.int64)) != 0 for key in keys], axis=0))
    token_R = np.empty(len(rows), np.int64)
    token_R[order] = np.cumsum(new_R) - 1
    first_T = order[new_R]
    layers, place_R = np.unique(rows.layer_R, return_inverse=True)
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers are more than {MAX_LAYERS:,}")
    cell_R, shape = token_R * len(layers) + place_R, (len(first_T), len(layers), rows.experts_RK.shape[1])
    check_memory(8 * int(np.prod(shape)))
    if len(cell_R) > len(np.unique(cell_R)):
        twice = int(np.flatnonzero(np.bincount(cell_R) > 1)[0])
        position = rows.position_R[first_T[twice // len(layers)]]
        raise ValueError(f"position {position} has two rows in layer {layers[twice % len(layers)]}")
    sequence_T, decode_T = rows.sequence_R[first_T], rows.decode_R[first_T]
    begins_T = decode_T | np.append(True, (np.diff(sequence_T) != 0) | (np.diff(decode_T.astype(int)) != 0))
    return LoggedChoices(
        cube(rows.experts_RK, cell_R, shape, NO_EXPERT),
        layers.tolist() if layer_names is None else layer_names,
        step_T=np.cumsum(begins_T) - 1,
        sequence_T=sequence_T,
        position_T=rows.position_R[first_T],
        decode_T=decode_T,
        token_id_T=None if rows.token_id_R is None else rows.token_id_R[first_T],
        weights_TLK=None if rows.weights_RK is None else cube(rows.weights_RK, cell_R, shape, np.nan),
        dropped_TLK=None if rows.dropped_RK is None else cube(rows.dropped_RK, cell_R, shape, missing=False),
    )


def cube(values_RK: npt.NDArray[Any], cell_R: Ids, shape: tuple[int, int, int], missing: float | bool) -> npt.NDArray[Any]:
    """Rows at their places, (T, L, K)."""
    found = np.full((shape[0] * shape[1], shape[2]), missing, values_RK.dtype)
    found[cell_R] = values_RK
    return found.reshape(shape)


def sequences_of(*keys: Ids) -> Ids:
    """The sequence of every row of a log that does not state it: a new one begins if what the keys name comes again, (R,)."""
    place_R = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].reshape(-1)
    if len(place_R) == place_R.max(initial=-1) + 1:
        return np.zeros(len(place_R), np.int64)
    found, seen, number = np.empty(len(place_R), np.int64), np.full(int(place_R.max()) + 1, -1), 0
    for row, place in enumerate(place_R.tolist()):
        number += seen[place] == number
        seen[place] = found[row] = number
    return found
