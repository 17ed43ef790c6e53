"""What the routers of a real model decide while an episode runs."""

from pathlib import Path

import torch
from torch import Tensor

from moeprof.instrument.probe import Probe, observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step
from moeprof.models.build import Model
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.traces.routing_trace import TraceHeader
from moeprof.workloads.episodes import Episode

Decisions = dict[tuple[str, int, str], list[list[int]]]
"""Experts (T, K) by phase, step and layer; padding shows as an empty list."""


class Decided(Probe):
    """Keeps them."""

    def __init__(self) -> None:
        self.experts: Decisions = {}

    def routed(self, layer: str, step: Step, experts_TK: Tensor, probs_TK: Tensor, dropped_TK: Tensor, num_rows: int) -> None:
        real = [True] * len(experts_TK) if step.real_T is None else step.real_T.tolist()
        rows = [mine if is_real else [] for mine, is_real in zip(experts_TK.tolist(), real, strict=True)]
        self.experts[step.phase, step.index, layer] = rows


def settled(episode: Episode, model: Model) -> Decisions:
    """While tokens are decided, greedily."""
    decided = Decided()
    with torch.inference_mode(), observed_by(decided):
        episode.settle(model)
    return decided.experts


def played(episode: Episode, model: Model) -> Decisions:
    """While they are fed again."""
    decided = Decided()
    with torch.inference_mode():
        play = episode.ready(model)
        with observed_by(decided):
            play()
    return decided.experts


def record(recipe: Recipe, phase: str, episodes: list[Episode], model: Model, folder: Path) -> None:
    """Leaves the phase's trace in the folder's `routing/`, as a run does."""
    recorder = RoutingRecorder()
    with torch.inference_mode():
        for episode in episodes:
            episode.settle(model)
            play = episode.ready(model)
            with observed_by(recorder):
                play()
    header = TraceHeader(
        workload=recipe.workload,
        phase=phase,
        variant="static",
        num_experts=recipe.model.experts,
        top_k=recipe.gating.top_k,
        layers=recipe.moe_layers(phase),
    )
    trace = recorder.trace(header)
    (folder / "routing").mkdir(exist_ok=True)
    trace.write(folder / "routing" / trace.file_name)
