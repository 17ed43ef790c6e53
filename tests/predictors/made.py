"""A predictor of a recipe's model with random weights."""

from pathlib import Path

import torch

import moeprof
from moeprof.predictors.fingerprints import fingerprints
from moeprof.predictors.predictor import ExpertPredictor
from moeprof.records.predictor import SCHEMA, FitSettings, PredictorHeader, stacks_of
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import weights_hash

FITTED = [[(number * number + seed) % 251 + 4 for number in range(100)] for seed in (1, 2, 3)]
"""Documents that the predictor was fitted on."""


def made(recipe: Recipe) -> ExpertPredictor:
    """The predictor, which no training has changed."""
    header = PredictorHeader(
        schema_version=SCHEMA,
        moeprof_version=moeprof.__version__,
        kind="sida",
        recipe=recipe.name,
        weights_hash=weights_hash(recipe),
        dim=recipe.model.dim,
        top_k=recipe.gating.top_k,
        width=6,
        stacks=stacks_of(recipe.model),
        text_hashes={"prose": "0"},
        documents=len(FITTED),
        settings=FitSettings(),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ExpertPredictor(header, fingerprints(FITTED))


def written(recipe: Recipe, path: Path) -> Path:
    """The file of that predictor."""
    made(recipe).write(path)
    return path
