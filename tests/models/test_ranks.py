"""A model over ranks is the model: weights, tokens, routing and outputs are those of one rank that does the same batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from parallel.ranks import over_ranks
from studies.runs import early_ends

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model
from moeprof.moe.layer import use_variant
from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.workloads.episodes import DecodeEpisode, Episode
from moeprof.workloads.registry import make_workload
from tests.models.checkpoints import save_checkpoint

from .shapes import lively

FEW = {"lm": ["data.max_tokens=72"], "mt": ["data.max_tokens=80", "data.domains=['imbari', 'dorvek']"]}
"""Text for an odd number of batches, so that at two ranks one has nothing but padding in the end."""

WEIGHTS = ("model.experts=8", "gating.capacity_fraction=0.4")


def recipe_of(path: Path, workload: str, group: Group, *overrides: str) -> Recipe:
    return load_recipe(str(path), [*FEW[workload], *WEIGHTS, f"parallel.ranks={group.size}", *overrides])


class Decided(Probe):
    """The experts of every layer's real tokens, call by call."""

    def __init__(self) -> None:
        self.experts: list[list[list[int]]] = []

    def routed(self, layer: str, step: Step, experts_TK: torch.Tensor, *_: object) -> None:
        self.experts.append(experts_TK[real(step)].tolist())


def real(step: Step) -> torch.Tensor:
    assert step.token_T is not None
    return torch.ones(len(step.token_T), dtype=torch.bool) if step.real_T is None else step.real_T


@dataclass(frozen=True)
class Done:
    """What came of one episode."""

    outputs: list[np.ndarray]
    """Of real rows, step by step."""
    tokens: list[list[int]]
    """Of real rows, step by step."""
    experts: list[list[list[int]]]


Found = list[Done]


def done(model: Model, episodes: list[Episode], dispatch: str) -> Found:
    """Every batch settled under static gating and played under a dispatch, one after another."""
    found = []
    for episode in episodes:
        use_variant(model, Variant())
        episode.settle(model)
        use_variant(model, Variant(dispatch, "loop" if dispatch == "dynamic" else "bmm"))
        decided = Decided()
        with observed_by(decided):
            outputs = [y_TV[real(step)].numpy() for step, y_TV in zip(episode.steps, episode.outputs(model), strict=True)]
        tokens = [torch.from_numpy(step.token_T)[real(step)].tolist() for step in episode.steps]
        found.append(Done(outputs, tokens, decided.experts))
    return found


def over_this_rank(group: Group, recipe: Recipe) -> dict[tuple[str, str], Found]:
    """By phase and dispatch."""
    model, workload = build_model(recipe, group=group), make_workload(recipe, group)
    return {
        (phase, dispatch): done(model, workload.episodes(phase), dispatch) for phase in recipe.phases for dispatch in DISPATCHES
    }


def alone(episode: Episode) -> Episode:
    return replace(episode, group=ALONE) if isinstance(episode, DecodeEpisode) else episode


@pytest.fixture(params=[("lm", 2), ("lm", 4), ("mt", 2)], ids=lambda param: f"{param[0]}-{param[1]}")
def both(request: pytest.FixtureRequest, micro: Callable[[str], Path], tmp_path: Path) -> Iterator[tuple[Found, Found]]:
    """Every phase and dispatch on every rank, beside one rank with all experts on the same local batches."""
    workload, size = request.param
    path, weights = micro(workload), tmp_path / "weights.safetensors"
    model = lively(build_model(recipe_of(path, workload, ALONE)))
    early_ends(model)
    save_checkpoint(model, weights)
    checkpoint = f"model.checkpoint={weights}"
    model = build_model(recipe_of(path, workload, ALONE, checkpoint))
    ranks = over_ranks(size, over_this_rank, recipe_of(path, workload, Group(0, size), checkpoint))

    def pairs() -> Iterator[tuple[Found, Found]]:
        for rank, mine in enumerate(ranks):
            local = make_workload(recipe_of(path, workload, ALONE), Group(rank, size))
            for (phase, dispatch), found in mine.items():
                with torch.inference_mode():
                    yield found, done(model, [alone(episode) for episode in local.episodes(phase)], dispatch)

    return pairs()


def test_tokens_routing_and_outputs_are_those_of_one_rank_that_runs_the_same_local_batches(
    both: Iterator[tuple[Found, Found]],
) -> None:
    only_padding = longer = 0
    for found, expected in both:
        for mine, theirs in zip(found, expected, strict=True):
            waited = len(mine.tokens) - len(theirs.tokens)
            assert mine.tokens == theirs.tokens + [[]] * waited
            assert [experts for experts in mine.experts if experts] == [experts for experts in theirs.experts if experts]
            for ours, others in zip(mine.outputs, theirs.outputs, strict=False):
                np.testing.assert_allclose(ours, others, rtol=1e-5, atol=1e-5)
            only_padding += not any(mine.tokens)
            longer += waited
    assert only_padding  # on some rank
