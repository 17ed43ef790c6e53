"""Trains a checkpoint of a recipe's model, or of the dense twin that it is compared with."""

from pathlib import Path

import torch

from moeprof.analysis.model_size import num_parameters
from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.machine import available_memory
from moeprof.models.build import Model, build_model
from moeprof.moe.layer import use_variant
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.units import format_bytes
from moeprof.studies.train.checkpoint import origin_of, write_checkpoint
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.loop import Listener, Timer, Training, process_time
from moeprof.studies.train.state import Course, fingerprint, state_path

BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments in float32."""


def train(recipe: Recipe, out: Path, listener: Listener, *, twin: bool = False, timer: Timer = process_time) -> Course:
    """Writes the checkpoint `out`; continues from the state beside it if there is one, and keeps that file."""
    check_trainable(recipe)
    recipe = on_cpu(recipe)
    torch.set_num_threads(recipe.train.threads)
    keep_freed_memory()
    corpus = make_corpus(recipe)
    training = Training(
        learner(recipe, twin=twin), recipe.train, corpus, state_path(out), fingerprint(recipe, twin=twin), timer
    )
    course = training.run(listener)
    origin = origin_of(recipe, twin=twin, hashes=corpus.hashes, tokens=course.tokens, curve=course.curve)
    write_checkpoint(out, training.model, origin)
    return course


def check_trainable(recipe: Recipe) -> None:
    """Raises an error if the recipe cannot be trained, or not on this machine."""
    if recipe.own_model.tokenizer == "hashed":
        raise UsageError(f"recipe {recipe.name}: model.tokenizer is hashed, which cannot be decoded", "Use bytes or words.")
    needed = num_parameters(recipe.own_model) * BYTES_PER_PARAMETER
    if needed > (available := available_memory("cpu")):
        raise MoeprofError(
            f"recipe {recipe.name}: training needs more than {format_bytes(needed)}, but only {format_bytes(available)} are free",
            f"Train a smaller recipe, such as {recipe.workload}-tiny.",
        )


def on_cpu(recipe: Recipe) -> Recipe:
    """The recipe on the CPU, on which training is reproducible."""
    return recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"device": "cpu"})})


def twin_recipe(recipe: Recipe) -> Recipe:
    """The recipe of the dense twin with hidden width k x F, as wide as the experts of one token together."""
    width = recipe.gating.top_k * recipe.own_model.ffn_dim
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"ffn_dim": width})})


def learner(recipe: Recipe, *, twin: bool) -> Model:
    """The untrained model in float32, dropless and with gradients."""
    model = recipe.model.model_copy(update={"checkpoint": None, "dtype": "float32"})
    plain = recipe.model_copy(update={"model": model})
    untrained = build_model(twin_recipe(plain) if twin else plain, dense=twin).requires_grad_(True)
    use_variant(untrained, None)
    return untrained
