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


def joined(parts: Sequence[ChoiceRows]) -> ChoiceRows:
    """The rows of all parts of a recording, without weights if one has none; ValueError if they differ in the number of choices."""
    if len(widths := {part.experts_RK.shape[1] for part in parts}) > 1:
        raise ValueError(f"its parts have {min(widths)} and {max(widths)} choices of a token")
    weights = [part.weights_RK for part in parts if part.weights_RK is not None]
    return ChoiceRows(
        np.concatenate([part.sequence_R for part in parts]),
        np.concatenate([part.position_R for part in parts]),
        np.concatenate([part.decode_R for part in parts]),
        np.concatenate([part.layer_R for part in parts]),
        np.concatenate([part.experts_RK for part in parts]),
        np.concatenate(weights) if len(weights) == len(parts) else None,
    )


def choices_of(rows: ChoiceRows, layer_names: Sequence[str] | None = None) -> LoggedChoices:
    """The tokens by sequence, prompt before decoded ones, and position; a prompt is one step, and each decoded token a step.

    ValueError if a token has two rows in one layer.
    """
    if not len(rows):
        raise ValueError("no choices in it")
    token_R, first_T = numbered(rows.sequence_R, rows.decode_R.astype(np.int64), rows.position_R)
    layers, place_R = np.unique(rows.layer_R, return_inverse=True)
    if len(layers) > MAX_LAYERS:
        raise ValueError(f"{len(layers)} layers are more than {MAX_LAYERS:,}")
    cell_R, shape = token_R * len(layers) + place_R, (len(first_T), len(layers), rows.experts_RK.shape[1])
    check_memory(8 * int(np.prod(shape)))
    in_order_R = np.sort(cell_R)
    if len(twice := in_order_R[1:][in_order_R[1:] == in_order_R[:-1]]):
        token, layer = divmod(int(twice[0]), len(layers))
        raise ValueError(f"position {rows.position_R[first_T[token]]} has two rows in layer {layers[layer]}")
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
    place_R, first = numbered(*keys)
    if len(place_R) == len(first):
        return np.zeros(len(place_R), np.int64)
    found, seen, number = np.empty(len(place_R), np.int64), np.full(len(first), -1), 0
    for row, place in enumerate(place_R.tolist()):
        number += seen[place] == number
        seen[place] = found[row] = number
    return found


def numbered(*keys: Ids) -> tuple[Ids, Ids]:
    """The number of what the keys of every row name, ascending by the first key, then the others, (R,); and the first row of each."""
    order = np.lexsort(keys[::-1])
    new_R = np.ones(len(order), bool)
    new_R[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    number_R = np.empty(len(order), np.int64)
    number_R[order] = np.cumsum(new_R) - 1
    return number_R, order[new_R]
