"""Trainings of a second: the micro recipes with a few updates."""

from collections.abc import Callable
from pathlib import Path

import torch

from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.studies.train.own import OwnLearner

Micro = Callable[[str], Path]

SETS = {
    "lm": ("train.sequence_length=24", "train.corpus_size=4000", "train.learning_rate=0.01"),
    "mt": ("train.sequence_length=24", "train.corpus_size=60", "train.learning_rate=0.01"),
}
BRIEF = ("train.steps=6", "train.batch_size=4", "train.warmup_steps=2", "train.evaluate_every=2", "train.heldout_sequences=4")


def brief(micro: Micro, workload: str, *overrides: str) -> Recipe:
    """Six updates on little text."""
    return load_recipe(str(micro(workload)), (*BRIEF, *SETS[workload], *overrides))


class Quiet:
    """A listener that counts updates, and may interrupt after one of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.done, self.stop_after, self.lines = 0, stop_after, list[str]()

    def stage(self, title: str, total: int) -> None:
        self.total = total

    def advance(self) -> None:
        self.done += 1
        if self.done == self.stop_after:
            raise KeyboardInterrupt

    def show_quality(self, text: str) -> None:
        self.lines.append(text)


def weights(recipe: Recipe, path: Path, *, twin: bool = False) -> dict[str, torch.Tensor]:
    """The parameters of a checkpoint."""
    return dict(OwnLearner.trained(recipe, path, twin=twin).model.named_parameters())
