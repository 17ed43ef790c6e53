"""Rows of foreign arrays get the absolute numbers of their layers, or are refused."""

import numpy as np
import pytest

from moeprof.records.traces.dense_layers import moe_layers_of
from moeprof.records.traces.layer_map import LayerMap


def test_a_list_of_layers_is_parsed() -> None:
    assert LayerMap.parse("1-3, 7,5").moe_layers == (1, 2, 3, 5, 7)


@pytest.mark.parametrize("text", ["", "a", "3-1", "1,1", "1-3,2", "-1", "1-", "99999", "1.5", "1-100000"])
def test_what_is_no_list_of_layers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="layer"):
        LayerMap.parse(text)


@pytest.mark.parametrize(
    ("stated", "count", "rows", "layers"),
    [
        (LayerMap((1, 2), 4), 2, (0, 1), (1, 2)),
        (LayerMap((1, 2), 4), 4, (1, 2), (1, 2)),
        (LayerMap((1, 2)), 3, (1, 2), (1, 2)),
        (LayerMap((0, 1)), 2, (0, 1), (0, 1)),
    ],
)
def test_an_array_has_a_row_per_moe_layer_or_per_layer(
    stated: LayerMap, count: int, rows: tuple[int, ...], layers: tuple[int, ...]
) -> None:
    found = stated.rows(count)
    assert (found.rows, found.layers) == (rows, layers)


@pytest.mark.parametrize(("stated", "count"), [(LayerMap((1, 2), 4), 3), (LayerMap((1, 5)), 4), (LayerMap((1, 2), 4), 5)])
def test_another_number_of_rows_is_refused(stated: LayerMap, count: int) -> None:
    with pytest.raises(ValueError, match=f"it has {count} layers, but the model has 2 MoE layers"):
        stated.rows(count)


EXPERTS_TLK = np.array([[[0, 0], [3, 1], [0, 2]], [[0, 0], [1, 0], [2, 3]]])
"""Layer 0 is dense."""


def test_dense_layers_are_left_out() -> None:
    found, layers = moe_layers_of(EXPERTS_TLK, LayerMap.parse("1-2"))
    assert layers == (1, 2)
    assert found.tolist() == [[[3, 1], [0, 2]], [[1, 0], [2, 3]]]
    assert moe_layers_of(EXPERTS_TLK[:, 1:], LayerMap.parse("1-2"))[0].tolist() == found.tolist()


@pytest.mark.parametrize(
    ("experts_TLK", "stated", "reason"),
    [
        (EXPERTS_TLK, None, "its 3 layers may be all layers of the model or those with experts; layer 0 of them is empty"),
        (
            EXPERTS_TLK[:, 1:],
            None,
            "its 2 layers may be all layers of the model or those with experts: state them by --model-config",
        ),
        (EXPERTS_TLK, LayerMap((0, 1), 3), "layer 2 has choices, but no experts by the stated layers"),
        (EXPERTS_TLK, LayerMap((0, 1, 2), 3), "layer 0 has only choices of expert 0 or -1, as if it were dense"),
        (EXPERTS_TLK * 0, LayerMap((1, 2), 3), "every choice is expert 0 or -1, so nothing was recorded"),
        (np.array([[[0], [1]]] * 4), LayerMap((0, 1)), "layer 0 has only choices of expert 0 or -1, as if it were dense"),
        (EXPERTS_TLK * 0 - 1, LayerMap((1, 2), 3), "every choice is expert 0 or -1, so nothing was recorded"),
    ],
)
def test_a_dense_layer_is_never_counted_as_expert_0(experts_TLK: np.ndarray, stated: LayerMap | None, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        moe_layers_of(experts_TLK, stated)


def test_one_choice_of_expert_0_may_be_a_choice() -> None:
    """A top-1 router may send every one of a few tokens to expert 0."""
    found, layers = moe_layers_of(np.zeros((3, 1, 1), int), LayerMap((4,)))
    assert (found.tolist(), layers) == ([[[0]]] * 3, (4,))
