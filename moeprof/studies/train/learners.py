"""The learner of a recipe: one of moeprof's own models, or one of transformers."""

from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.studies.train.huggingface import HuggingFaceLearner
from moeprof.studies.train.learner import Learner
from moeprof.studies.train.own import OwnLearner


def untrained(recipe: Recipe, *, twin: bool) -> Learner:
    """A learner with random weights; an error if the recipe cannot be trained, or not on this machine."""
    if not isinstance(recipe.model, HuggingFaceSection):
        return OwnLearner.untrained(recipe, twin=twin)
    if twin:
        raise UsageError(f"recipe {recipe.name}: --twin: a Hugging Face model has no dense twin", "Remove --twin.")
    return HuggingFaceLearner.untrained(recipe)


def trained(recipe: Recipe, path: Path, *, twin: bool) -> Learner:
    """A learner with the weights of a checkpoint; UsageError if they cannot be read."""
    if isinstance(recipe.model, HuggingFaceSection):
        return HuggingFaceLearner.trained(path)
    return OwnLearner.trained(recipe, path, twin=twin)
