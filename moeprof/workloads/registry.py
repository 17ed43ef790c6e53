"""The workloads by name; a new one is one file and one line here."""

from collections.abc import Callable, Sequence
from typing import Protocol

from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import FittedText
from moeprof.workloads.batches import Batch
from moeprof.workloads.episodes import Episode
from moeprof.workloads.language_modelling import LanguageModelling
from moeprof.workloads.translation import Translation


class Workload(Protocol):
    """Text in batches, and the work of each phase on them."""

    batches: list[Batch]
    """The sequences of every domain, in order."""
    text_hashes: dict[str, str]
    """SHA-256 of every domain's text."""
    fitted: dict[str, FittedText]
    """By domain, how many sentences were split, if the workload splits sentences."""

    def episodes(self, phase: str) -> list[Episode]:
        """The episodes of a phase in order, domain by domain."""
        ...

    def mixture(self, phase: str, episodes: Sequence[Episode], size: int) -> Episode:
        """One batch of `size` sequences of these settled episodes, domains in turn, repeated if there are too few."""
        ...


WORKLOADS: dict[str, Callable[[Recipe, Group], Workload]] = {"lm": LanguageModelling, "mt": Translation}


def make_workload(recipe: Recipe, group: Group = ALONE) -> Workload:
    """The recipe's workload with its text read and cut into the batches of one rank."""
    if isinstance(recipe.model, HuggingFaceSection):
        from moeprof.workloads.huggingface import HuggingFaceText

        return HuggingFaceText(recipe, group)
    return WORKLOADS[recipe.workload](recipe, group)
