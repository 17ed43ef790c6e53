"""Real ranks under a placement: outputs are unchanged, and the tokens that reach them are those that a trace predicts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pytest
from models.test_ranks import FEW, recipe_of
from parallel.ranks import over_ranks

from moeprof.analysis.placement.device_load import device_counts
from moeprof.analysis.placement.virtual_parallel import choices_of, flows
from moeprof.analysis.routing.load_matrix import layer_matrices, pooled, rank_of_rows
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model
from moeprof.moe.deployment import deploy_placement
from moeprof.moe.layer import moe_layers, use_variant
from moeprof.parallel.group import Group
from moeprof.policies.balancing.balancer import Cluster
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.traces.routing_trace import RoutingTrace, joined
from moeprof.studies.passes.routing import trace_header
from moeprof.workloads.episodes import Episode
from moeprof.workloads.registry import make_workload

PLAIN = Variant("dynamic", "loop")
GREEDY = Variant("dynamic", "loop", placement="greedy")
COPIES = Variant("dynamic", "loop", placement="eplb-distinct", replicas=1)
VARIANTS = (PLAIN, GREEDY, COPIES)

Slots = dict[str, list[list[int]]]


class Counted(RoutingRecorder):
    """Decisions, and what this rank sent every rank of each layer's tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: dict[tuple[str, int], list[int]] = {}
        self.last: list[int] = []

    def exchanged(self, region: str, layer: str, to_bytes: Sequence[int], *times_ns: int) -> None:
        if region == "a2a_dispatch":
            self.last = list(to_bytes)

    def routed(self, layer: str, step: Step, *decided: object) -> None:
        self.sent[layer, step.index] = self.last
        super().routed(layer, step, *decided)  # type: ignore[arg-type]


@dataclass
class Found:
    """One phase under one variant on one rank."""

    trace: pa.Table
    sent: dict[tuple[str, int], list[int]]
    """Bytes by layer, step and destination."""
    outputs: list[np.ndarray] = field(default_factory=list)
    """Of real rows, step by step."""


def slots_of(recipe: Recipe) -> dict[Variant, Slots]:
    """Experts dealt to the ranks by chance, every layer another way; copies never beside each other."""
    ranks, experts = recipe.parallel.ranks, recipe.model.experts
    found: dict[Variant, Slots] = {GREEDY: {}, COPIES: {}}
    for seed, layer in enumerate(recipe.model.moe_layers_of("all")):
        random = np.random.default_rng(seed)
        plain = random.permutation(experts).reshape(ranks, -1).tolist()
        found[GREEDY][layer] = plain
        more = [random.choice(sorted(set(range(min(3, experts))) - set(held)) or [experts - 1], 1) for held in plain]
        found[COPIES][layer] = [[*map(int, one), *held] for one, held in zip(more, plain, strict=True)]
    return found


def played(model: Model, recipe: Recipe, phase: str, episodes: list[Episode], variant: Variant) -> Found:
    """Every batch under a variant, twice: observed, and for its outputs."""
    use_variant(model, variant)
    counted, outputs = Counted(), []
    for episode in episodes:
        play = episode.ready(model)
        with observed_by(counted):
            play()
        for step, y_TV in zip(episode.steps, episode.outputs(model), strict=True):
            outputs.append((y_TV if step.real_T is None else y_TV[step.real_T]).numpy())
    return Found(counted.trace(trace_header(recipe, phase, variant)).table, counted.sent, outputs)


def over_this_rank(group: Group, recipe: Recipe) -> dict[tuple[str, Variant], Found]:
    """Every phase under every variant."""
    model, workload = build_model(recipe, group=group), make_workload(recipe, group)
    for variant, slots in slots_of(recipe).items():
        for layer in moe_layers(model):
            deploy_placement(layer, variant, slots[layer.name])
    found = {}
    for phase in recipe.phases:
        episodes = workload.episodes(phase)
        use_variant(model, PLAIN)
        for episode in episodes:
            episode.settle(model)
        for variant in VARIANTS:
            found[phase, variant] = played(model, recipe, phase, episodes, variant)
    return found


@pytest.fixture(scope="module", params=[("lm", 2), ("lm", 4), ("mt", 2)], ids=lambda param: f"{param[0]}-{param[1]}")
def ranks(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, list[dict]]:
    from conftest import MICRO

    workload, size = request.param
    path = tmp_path_factory.mktemp(workload) / "micro.toml"
    path.write_text(MICRO[workload])
    recipe = recipe_of(path, workload, Group(0, size))
    return recipe, over_ranks(size, over_this_rank, recipe)


def test_a_placement_leaves_the_outputs_of_every_rank_unchanged(ranks: tuple[Recipe, list[dict]]) -> None:
    """Statement 22, with copies and without."""
    recipe, found = ranks
    compared = 0
    for phase in recipe.phases:
        for rank in found:
            for variant in (GREEDY, COPIES):
                for ours, theirs in zip(rank[phase, variant].outputs, rank[phase, PLAIN].outputs, strict=True):
                    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
                    compared += len(ours)
    assert compared > 50


def test_the_tokens_that_reach_a_rank_are_those_that_the_traces_predict(ranks: tuple[Recipe, list[dict]]) -> None:
    recipe, found = ranks
    row_bytes = recipe.model.dim * recipe.model.bytes_per_element
    steps, uneven = 0, 0
    for phase in recipe.phases:
        unplaced = [rank[phase, PLAIN] for rank in found]
        header = trace_header(recipe, phase, PLAIN)
        traces = [RoutingTrace(header, one.trace) for one in unplaced]
        everyone = joined(header, [one.trace for one in unplaced])
        for matrices in layer_matrices(everyone, rank_R=rank_of_rows(traces)):
            matrix = pooled(matrices)
            for variant, slots in slots_of(recipe).items():
                slots_DS = np.array(slots[matrix.layer])
                predicted_NB = device_counts(matrix, slots_DS)
                sent_NN = sum(
                    np.array([rank[phase, variant].sent[matrix.layer, step] for rank in found]) for step in matrix.steps_B
                )
                choices = choices_of(traces, matrix.layer)
                assert choices is not None
                predicted = flows(choices, slots_DS, Cluster(*slots_DS.shape))
                assert (sent_NN / row_bytes).tolist() == predicted.pairs_DD.tolist()
                for column, step in enumerate(matrix.steps_B.tolist()):
                    sent = np.array([rank[phase, variant].sent[matrix.layer, step] for rank in found])
                    assert (sent.sum(axis=0) / row_bytes).tolist() == predicted_NB[:, column].tolist()
                    steps += 1
                    uneven += len(set(predicted_NB[:, column].tolist())) > 1
    assert steps > 20
    assert uneven


def test_some_rank_had_nothing_but_padding(ranks: tuple[Recipe, list[dict]]) -> None:
    """So that the tests above say something about it."""
    recipe, found = ranks
    assert FEW[recipe.workload]
    assert any(not sum(bytes_to) for rank in found for one in rank.values() for bytes_to in one.sent.values())
