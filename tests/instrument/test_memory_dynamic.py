"""The tracker beside arithmetic under dynamic gating: what the layer holds follows from its tokens alone."""

import pytest
import torch

from moeprof.instrument.memory import MemoryTracker
from moeprof.instrument.step import Step
from moeprof.models.initialise import initialise
from moeprof.moe.layer import MoELayer
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant


def recipe_of(experts: int, dim: int, ffn_dim: int, fraction: float, dtype: str) -> Recipe:
    changes = {"dim": dim, "ffn_dim": ffn_dim, "experts": experts, "dtype": f'"{dtype}"'}
    sets = [f"model.{key}={value}" for key, value in changes.items()]
    return load_recipe("lm-tiny", overrides=[*sets, f"gating.capacity_fraction={fraction}"])


def dispatch_buffers(recipe: Recipe, tokens: int, real: int) -> int:
    """The peak of one layer with the grouped product, bytes."""
    dtype = getattr(torch, recipe.model.dtype)
    layer = MoELayer("1", recipe).to(dtype)
    layer.router.float()
    initialise(layer, 0)
    layer.variant, tracker = Variant("dynamic", "grouped_mm"), MemoryTracker(layer)
    x_TD, real_T = torch.ones(tokens, recipe.model.dim, dtype=dtype), torch.arange(tokens) < real
    with torch.inference_mode(), tracker.observing():
        layer(x_TD, Step(real_T, num_real=real))
    return tracker.bytes.by_category["dispatch_buffers"]


@pytest.mark.parametrize(
    ("tokens", "real", "experts", "dim", "ffn_dim", "dtype"),
    [
        (64, 64, 16, 32, 256, "float32"),  # both hidden buffers are the largest
        (64, 40, 16, 32, 256, "float32"),
        (96, 96, 8, 64, 64, "bfloat16"),  # outputs and their biases beside the hidden buffer are
        (96, 24, 8, 64, 512, "bfloat16"),
    ],
)
def test_the_peak_of_dynamic_gating_is_what_its_tokens_dictate(
    tokens: int, real: int, experts: int, dim: int, ffn_dim: int, dtype: str
) -> None:
    element, choices, rows = 4 if dtype == "float32" else 2, 2 * tokens, 2 * real
    sent = rows * dim * element + choices * (8 + element) + 4 * (experts + 1)
    at_work = rows * element * max(2 * ffn_dim, ffn_dim + 2 * dim) + 4 * experts
    found = [dispatch_buffers(recipe_of(experts, dim, ffn_dim, fraction, dtype), tokens, real) for fraction in (0.1, 1.0)]
    assert found == [sent + at_work] * 2
