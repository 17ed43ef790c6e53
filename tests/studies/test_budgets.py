"""The memory budgets of the shipped recipes: what static gating needs at its peak for the recipe's batch, and no more."""

from functools import partial

import pytest
import torch

from moeprof.instrument.memory import MemoryTracker
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model, make_model
from moeprof.models.translation_model import TranslationModel
from moeprof.moe.layer import use_variant
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.units import parse_bytes
from moeprof.studies.passes.memory import footprint
from moeprof.studies.selection import beginning
from moeprof.workloads.registry import make_workload

ROUNDED = parse_bytes("0.1MiB")
"""Budgets are written with one digit."""


def budget(recipe: Recipe) -> int:
    assert recipe.budget.memory is not None
    return recipe.budget.memory


def needed(recipe: Recipe, model: Model, batch_size: int, variant: Variant = STATIC) -> int:
    """The most over all phases, of a batch of all domains in turn."""
    workload, peaks = make_workload(recipe), []
    with torch.inference_mode():
        for phase in recipe.phases:
            episodes = workload.episodes(phase)
            use_variant(model, STATIC)
            for episode in episodes:
                episode.settle(model)
            use_variant(model, variant)
            mixture = beginning(workload.mixture(phase, episodes, batch_size))
            peaks.append(footprint(MemoryTracker(model), partial(mixture.ready, model)).total)
    return max(peaks)


@pytest.mark.parametrize("name", ["lm-tiny", "mt-tiny"])
def test_the_tiny_budgets_are_what_static_gating_needs_for_the_recipes_batch(name: str) -> None:
    recipe = load_recipe(name, ["load.batches=1", "load.decode_steps=4"])
    model, batch = build_model(recipe), recipe.load.batch_size
    assert needed(recipe, model, batch) <= budget(recipe)
    assert needed(recipe, model, batch + 1) > budget(recipe)
    assert needed(recipe, model, 2 * batch) > 1.5 * budget(recipe)
    assert needed(recipe, model, 2 * batch, Variant(dispatch="dynamic", kernel="loop")) <= budget(recipe)


@pytest.mark.parametrize(("name", "batch"), [("lm-small", 8), ("mt-small", 48)])
def test_the_small_budgets_are_the_papers_largest_static_batches(name: str, batch: int) -> None:
    """On tensors without memory: their sizes are all that counts."""
    recipe = load_recipe(name)
    assert recipe.load.batch_size == batch
    assert weightless(recipe, batch) <= budget(recipe) < weightless(recipe, batch) + ROUNDED
    assert weightless(recipe, batch + 1) > budget(recipe)


def weightless(recipe: Recipe, batch_size: int) -> int:
    """The peak of the phase in which whole sequences pass at once: of every other one a step has fewer tokens."""
    model = make_model(recipe)
    tracker = MemoryTracker(model)
    tokens_BL = torch.zeros(batch_size, recipe.load.sequence_length, dtype=torch.int64, device="meta")
    with torch.inference_mode(), tracker.observing():
        model.encode(tokens_BL, Step(None)) if isinstance(model, TranslationModel) else model(tokens_BL, Step(None))
    return tracker.static_bytes + tracker.bytes.peak.total
