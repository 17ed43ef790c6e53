"""How a trained model uses its experts on held-out text: shares by domain, and idle experts per step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from statistics import fmean

import numpy as np
import torch
from torch import Tensor

from moeprof.analysis.routing.drift import hot_jaccard
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.instrument.step import Step
from moeprof.models.build import Model
from moeprof.moe.layer import moe_layers
from moeprof.moe.router import Router
from moeprof.moe.routing import Routing
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import LayerUse
from moeprof.studies.train.learner import Learner
from moeprof.studies.train.lessons import Lesson
from moeprof.workloads.episodes import Episode

UsageKey = tuple[str, str, str]
"""Phase, layer and domain."""


@dataclass(eq=False)
class DecisionCounts:
    """Counts of the routers' decisions."""

    full_step: int
    """Tokens of a decode step in which no sequence has ended."""
    counts: dict[UsageKey, Counts] = field(default_factory=dict)
    active: dict[UsageKey, list[int]] = field(default_factory=dict)
    """Number of active experts of each step; only of decode steps in which no sequence has ended."""

    def hook(self, name: str, router: Router, inputs: tuple[Tensor, Step], routing: Routing) -> None:
        """The hook, called after every router."""
        step = inputs[1]
        key = step.phase, name, step.domain
        counts_E = self.add(key, routing)
        if step.phase == "decode" and step.num_tokens == self.full_step:
            self.active.setdefault(key, []).append(int((counts_E > 0).sum()))

    def add(self, key: UsageKey, routing: Routing) -> Counts:
        """Counts the decisions of one forward pass, (E,)."""
        counts_E = torch.bincount(routing.experts_TK[routing.kept()], minlength=routing.num_experts).numpy()
        self.counts[key] = self.counts[key] + counts_E if key in self.counts else counts_E
        return counts_E


@contextmanager
def observed(model: Model, decisions: DecisionCounts) -> Iterator[None]:
    """Registers hooks on every router inside the block."""
    handles = [layer.router.register_forward_hook(partial(decisions.hook, layer.name)) for layer in moe_layers(model)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layer_uses(model: Model, recipe: Recipe, episodes: Mapping[str, Sequence[Episode]]) -> list[LayerUse]:
    """Expert use of every phase and layer; settles the episodes, which are given by phase."""
    decisions = DecisionCounts(recipe.load.batch_size)
    with observed(model, decisions):
        for phase, found in episodes.items():
            for episode in found:
                episode.settle(model)  # decodes, if the phase does
                if phase != "decode":
                    episode.ready(model)()
    num_experts, top_k = recipe.model.experts, recipe.gating.top_k
    keys = [(phase, layer) for phase in episodes for layer in recipe.moe_layers(phase)]
    return [layer_use(decisions, phase, layer, num_experts, top_k) for phase, layer in keys]


def lesson_uses(learner: Learner, heldout: Mapping[str, Lesson]) -> list[LayerUse]:
    """Expert use of every layer on held-out text, in the phase `score`."""
    decisions, shapes = DecisionCounts(0), dict[str, tuple[int, int]]()

    def look(domain: str, layer: str, logits_TE: Tensor, routing: Routing) -> None:
        shapes[layer] = routing.num_experts, routing.experts_TK.shape[1]
        decisions.add(("score", layer, domain), routing)

    for domain, lesson in heldout.items():
        with learner.at_routers(partial(look, domain)):
            learner.logits(lesson)
    return [layer_use(decisions, "score", layer, *shape) for layer, shape in shapes.items()]


def layer_use(decisions: DecisionCounts, phase: str, layer: str, num_experts: int, top_k: int) -> LayerUse:
    """Expert use of one layer over all domains."""
    counts = {key[2]: counts_E for key, counts_E in decisions.counts.items() if key[:2] == (phase, layer)}
    active = {key[2]: found for key, found in decisions.active.items() if key[:2] == (phase, layer)}
    most = min(num_experts, top_k * decisions.full_step)
    return LayerUse(
        phase=phase,
        layer=layer,
        dead_experts=int((np.sum(list(counts.values()), axis=0) == 0).sum()),
        hot_jaccard={f"{one} / {other}": hot_jaccard(counts[one], counts[other]) for one, other in combinations(counts, 2)},
        inactive={domain: 1 - fmean(found) / num_experts for domain, found in active.items()},
        inactive_bound=1 - most / num_experts,
    )
