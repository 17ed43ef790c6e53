"""Trains a checkpoint of a recipe's model, or of the dense twin that it is compared with."""

from pathlib import Path

import torch

from moeprof.instrument.allocator import keep_freed_memory
from moeprof.records.recipe.recipe import Recipe
from moeprof.studies.train.checkpoint import origin_of
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.learners import untrained
from moeprof.studies.train.loop import Listener, Timer, Training, process_time
from moeprof.studies.train.state import Course, fingerprint, state_path


def train(recipe: Recipe, out: Path, listener: Listener, *, twin: bool = False, timer: Timer = process_time) -> Course:
    """Writes the checkpoint `out`; continues from the state beside it if there is one, and keeps that file."""
    recipe = on_cpu(recipe)
    torch.set_num_threads(recipe.train.threads)
    keep_freed_memory()
    learner = untrained(recipe, twin=twin)
    corpus = make_corpus(recipe)
    training = Training(learner, recipe.train, corpus, state_path(out), fingerprint(recipe, twin=twin), timer)
    course = training.run(listener)
    learner.write(out, origin_of(recipe, twin=twin, hashes=corpus.hashes, tokens=course.tokens, curve=course.curve))
    return course


def on_cpu(recipe: Recipe) -> Recipe:
    """The recipe on the CPU, on which training is reproducible."""
    return recipe.model_copy(update={"measure": recipe.measure.model_copy(update={"device": "cpu"})})
