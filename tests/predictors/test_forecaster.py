"""A predictor at work on a model predicts every step before its first layer, continues sequences, and costs nothing unasked."""

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.huggingface.recipe import resolved
from moeprof.instrument.step import Step
from moeprof.moe.forecast import Forecast
from moeprof.moe.layer import use_variant
from moeprof.moe.sparse_layer import sparse_layers
from moeprof.predictors.embeddings import embeddings_observed
from moeprof.predictors.forecaster import Forecaster
from moeprof.predictors.predictor import ExpertPredictor, stack_of
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.offloading import parsed
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.studies.progress import Silent
from moeprof.studies.services import RunModel, load_models
from moeprof.workloads.episodes import DecodeEpisode
from moeprof.workloads.registry import make_workload
from tests.predictors.made import made

Micro = Callable[[str], Path]
ASKING, OTHER = Variant("dynamic", "loop", store="sida"), Variant("dynamic", "loop")
SMALL = ("load.sequence_length=48", "load.decode_steps=4", "load.prompt_length=16", "load.batches=1")


def recipe_of(micro: Micro, name: str) -> Recipe:
    return resolved(load_recipe(name, SMALL)) if name == "hf-tiny" else load_recipe(str(micro(name)), ())


class Watched(Forecast):
    """Keeps what it was given."""

    def __init__(self, layers: dict[str, int]) -> None:
        super().__init__(parsed("sida"), layers, 2, lambda *_: [], [])
        self.given: list[tuple[Step, dict[str, Tensor]]] = []

    def begin(self, step: Step, gates: object) -> None:
        assert isinstance(gates, dict)
        self.given.append((step, gates))


@contextmanager
def attached(recipe: Recipe) -> Iterator[tuple[RunModel, ExpertPredictor, dict[str, Watched]]]:
    """A model with a predictor, and what it says to each stack under the variant that asks."""
    predictor = made(recipe)
    predictor.modules.requires_grad_(requires_grad=False)
    model = load_models(recipe, [OTHER], Silent())[OTHER]
    layers = {layer.name: layer for layer in sparse_layers(model)}
    found = {str(stack): Watched(shape.layers) for stack, shape in predictor.header.stacks.items()}
    for stack, shape in predictor.header.stacks.items():
        for name in shape.layers:
            layers[name].forecasts[ASKING] = found[str(stack)]
    with torch.inference_mode(), closing(Forecaster(model, predictor)):
        use_variant(model, ASKING)
        yield model, predictor, found


@pytest.mark.parametrize("name", ["lm", "mt", "hf-tiny"])
def test_every_step_of_a_generation_is_predicted_as_its_whole_sequences_are_also_in_a_second_round(
    micro: Micro, name: str
) -> None:
    recipe = recipe_of(micro, name)
    episode = make_workload(recipe).episodes("decode")[0]
    assert isinstance(episode, DecodeEpisode)
    with attached(recipe) as (model, predictor, found):
        episode.settle(model)
        embedded: list[tuple[str, Tensor]] = []
        play = episode.ready(model)
        with embeddings_observed(model, lambda x_BLD: embedded.append((model.step.phase if model.step else "", x_BLD))):
            begun = len(found["decoder"].given)
            play()
            play()
            again = episode.ready(model)  # reads the prompt or the source again
            again()
        given = found["decoder"].given[begun:]
        prompt = [x_BLD for phase, x_BLD in embedded if phase == "prefill"]
        steps = [x_BLD for phase, x_BLD in embedded if phase == "decode"]
        whole, _ = predictor.predict("decode", torch.cat([*prompt, *steps[: len(episode.steps)]], dim=1))
        batch = len(steps[0])
        for layer, gates_TE in whole.gates.items():
            columns = gates_TE.view(batch, -1, gates_TE.shape[1])[:, -len(episode.steps) :].unbind(1)
            decoded = [gates[layer] for step, gates in given if step.phase == "decode"]
            assert len(decoded) == 3 * len(episode.steps)
            for number, gates_BE in enumerate(decoded):
                torch.testing.assert_close(gates_BE, columns[number % len(episode.steps)], atol=1e-5, rtol=1e-4)


def test_an_encoder_is_predicted_without_its_padding(micro: Micro) -> None:
    recipe = recipe_of(micro, "mt")
    episode = make_workload(recipe).episodes("encode")[0]
    with attached(recipe) as (model, predictor, found):
        embedded: list[Tensor] = []
        with embeddings_observed(model, embedded.append):
            episode.ready(model)()
        (step, gates), real_BL = found["encoder"].given[-1], torch.from_numpy(episode.batch.real_BL)
        assert step is episode.steps[0]
        assert not real_BL.all()
        for row, real_L in enumerate(real_BL):
            alone, _ = predictor.predict("encode", embedded[0][row : row + 1, : int(real_L.sum())])
            for layer, gates_TE in gates.items():
                of_row = gates_TE.view(*real_BL.shape, -1)[row][real_L]
                torch.testing.assert_close(of_row, alone.gates[layer], atol=1e-5, rtol=1e-4)


def test_other_variants_do_not_run_the_network_and_a_closed_predictor_sees_nothing(
    micro: Micro, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(micro, "lm")
    episode = make_workload(recipe).episodes("score")[0]
    with attached(recipe) as (model, predictor, found):
        calls: list[str] = []
        usual = predictor.predict
        monkeypatch.setattr(predictor, "predict", lambda phase, *args: (calls.append(stack_of(phase)), usual(phase, *args))[1])
        use_variant(model, OTHER)
        episode.ready(model)()
        assert not calls
        use_variant(model, ASKING)
        episode.ready(model)()
        assert calls == ["decoder"]
    with torch.inference_mode():
        episode.ready(model)()
    assert calls == ["decoder"]
    assert len(found["decoder"].given) == 1
