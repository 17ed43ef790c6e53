"""An FFN form gives the shapes of its tensors, counts their parameters, and computes with any product of rows and matrices."""

import math

import numpy as np
import pytest

from moeprof.records.ffn.form import FFNForm, Matrix
from moeprof.records.ffn.gated import GATED
from moeprof.records.ffn.mlp import MLP
from moeprof.records.ffn.registry import FFN_FORMS, bias_names, register


def test_the_registry_names_the_forms() -> None:
    assert list(FFN_FORMS.items()) == [("mlp", MLP), ("gated", GATED)]


def test_a_taken_name_is_refused() -> None:
    with pytest.raises(ValueError, match="'gated' is registered already"):
        register(GATED)


@pytest.mark.parametrize(
    ("form", "bias", "shapes", "parameters"),
    [
        (MLP, True, {"w1": (3, 5), "b1": (5,), "w2": (5, 3), "b2": (3,)}, 15 + 5 + 15 + 3),
        (MLP, False, {"w1": (3, 5), "w2": (5, 3)}, 30),
        (GATED, False, {"gate": (3, 5), "up": (3, 5), "down": (5, 3)}, 45),
        (
            GATED,
            True,
            {"gate": (3, 5), "gate_bias": (5,), "up": (3, 5), "up_bias": (5,), "down": (5, 3), "down_bias": (3,)},
            45 + 5 + 5 + 3,
        ),
    ],
)
def test_a_form_has_these_tensors(form: FFNForm, bias: bool, shapes: dict[str, tuple[int, ...]], parameters: int) -> None:
    assert form.shapes(3, 5, bias=bias) == shapes
    assert list(form.shapes(3, 5, bias=bias)) == list(shapes)
    assert form.num_parameters(3, 5, bias=bias) == parameters


def test_mixtral_8x7b_has_its_published_expert_parameters() -> None:
    """32 layers of 8 experts of width 14,336 at D = 4,096 are 45.1 of its 46.7 billion parameters."""
    assert 32 * 8 * GATED.num_parameters(4096, 14336, bias=False) == 45_097_156_608


def test_names_of_biases_are_known_whatever_the_form() -> None:
    assert bias_names() == {"bias", "b1", "b2", "gate_bias", "up_bias", "down_bias"}


TENSORS = {"w1": 2.0, "b1": 1.0, "w2": 3.0, "b2": -1.0} | {
    "gate": 2.0,
    "gate_bias": 1.0,
    "up": -1.0,
    "up_bias": 0.5,
    "down": 4.0,
    "down_bias": 7.0,
}


def scaled(x: np.ndarray, matrix: Matrix) -> np.ndarray:
    """A stand-in for a matrix: one number times the rows, and its bias."""
    return TENSORS[matrix.name] * x + TENSORS[matrix.bias]


def test_the_two_matrix_form_has_the_activation_between_its_matrices() -> None:
    """max(2 x + 1, 0) 3 - 1 for x = -1 and 2."""
    found = MLP.outputs(np.array([-1.0, 2.0]), scaled, lambda hidden: np.maximum(hidden, 0))
    assert found.tolist() == [-1.0, 14.0]


def test_the_gated_form_multiplies_the_activated_gate_with_the_other_matrix() -> None:
    """silu(2 x + 1) (-x + 0.5) 4 + 7 for x = 2: silu(5) = 5 / (1 + e^-5)."""
    found = GATED.outputs(np.array([2.0]), scaled, lambda hidden: hidden / (1 + np.exp(-hidden)))
    assert found.tolist() == pytest.approx([5 / (1 + math.exp(-5)) * -1.5 * 4 + 7])
