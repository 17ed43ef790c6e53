"""What is recorded is what the model decides; the file can be used with the model, and its report adds up."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from string import ascii_lowercase

import pytest
import torch

from moeprof.instrument.step import make_step
from moeprof.models.build import build_model
from moeprof.models.language_model import LanguageModel
from moeprof.moe.layer import moe_layers, use_variant
from moeprof.predictors.embeddings import embeddings_observed
from moeprof.predictors.predictor import ExpertPredictor
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.predictor import FitReport, FitSettings, stacks_of
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC
from moeprof.studies.fit_predictor import study
from moeprof.studies.fit_predictor.lessons import taught
from moeprof.studies.fit_predictor.study import DROPLESS, fit_predictor
from moeprof.studies.progress import Silent
from moeprof.workloads.batches import token_sequences
from moeprof.workloads.calibration.episodes import episodes
from moeprof.workloads.calibration.halves import halves
from moeprof.workloads.language_modelling import LanguageModelling
from moeprof.workloads.registry import make_workload

Micro = Callable[[str], Path]
BRIEF = FitSettings(tokens=200, epochs=1, width=4)
WORKLOADS = pytest.mark.parametrize("workload", ["lm", "mt"])


def recipe_of(micro: Micro, workload: str, *overrides: str) -> Recipe:
    return load_recipe(str(micro(workload)), list(overrides))


def test_embeddings_gates_and_choices_are_those_of_the_model(micro: Micro) -> None:
    recipe = recipe_of(micro, "lm")
    model, excerpts = build_model(recipe), halves(recipe, 100)[0].excerpts
    assert isinstance(model, LanguageModel)
    use_variant(model, DROPLESS)
    lessons = taught(model, episodes(recipe, excerpts), stacks_of(recipe.model), Silent())["decoder"]
    assert len(lessons.spans) == len(excerpts)
    router = moe_layers(model)[0].router
    inputs = []
    with router.register_forward_hook(lambda module, args, output: inputs.append(args[0])):
        for (start, end), excerpt in zip(lessons.spans, excerpts, strict=True):
            tokens_BL = torch.tensor([excerpt.tokens])
            step = make_step("score", 0, "", tokens_BL.numpy(), tokens_BL.numpy() >= 0, torch.zeros(1).long().numpy(), 0, "cpu")
            model(tokens_BL, step)
            gates_TE = router.gates(inputs[-1])
            assert lessons.token_T[start:end].tolist() == excerpt.tokens
            torch.testing.assert_close(lessons.x_TD[start:end], model.embedding.weight[tokens_BL[0]] * model.embedding.scale)
            torch.testing.assert_close(lessons.gates["1"][start:end], gates_TE, atol=1e-6, rtol=1e-5)
            assert torch.equal(lessons.experts["1"][start:end], gates_TE.topk(2, dim=1).indices)


def test_an_encoder_decoder_is_observed_as_it_encodes_and_as_it_generates(micro: Micro) -> None:
    recipe = recipe_of(micro, "mt")
    excerpts = halves(recipe, 60)[0].excerpts
    model = build_model(recipe)
    use_variant(model, DROPLESS)
    found = taught(model, episodes(recipe, excerpts), stacks_of(recipe.model), Silent())
    assert len(found["encoder"].token_T) == sum(len(excerpt.tokens) for excerpt in excerpts)
    assert list(found["encoder"].gates) == ["enc.1"]
    assert list(found["decoder"].gates) == ["dec.1"]
    assert {end - start for start, end in found["decoder"].spans} <= set(range(1, recipe.load.decode_steps + 1))


@WORKLOADS
def test_the_file_of_a_fitting_predicts_for_the_model_and_is_the_same_again(
    micro: Micro, tmp_path: Path, workload: str
) -> None:
    recipe, files = recipe_of(micro, workload), [tmp_path / f"{name}.safetensors" for name in ("one", "two")]
    report, _ = (fit_predictor(recipe, file, BRIEF) for file in files)
    assert files[0].read_bytes() == files[1].read_bytes()
    check_report(report, recipe)
    predictor, model = ExpertPredictor.open(files[0], recipe), build_model(recipe)
    use_variant(model, STATIC)
    embedded: list[torch.Tensor] = []
    workload_ = make_workload(recipe)
    episode = workload_.episodes(recipe.phases[0])[0]
    with torch.inference_mode(), embeddings_observed(model, embedded.append):
        episode.ready(model)()
    predicted = predictor.predict(recipe.phases[0], embedded[0])[0].top(2)
    assert list(predicted) == recipe.moe_layers(recipe.phases[0])
    assert all(ids_TK.shape == (episode.batch.tokens_BL.size, 2) for ids_TK in predicted.values())
    if isinstance(workload_, LanguageModelling):
        predictor.check_unseen(token_sequences(workload_.batches))


def check_report(report: FitReport, recipe: Recipe) -> None:
    """The report has a rate of every method for every layer and number of experts, and of all layers their mean."""
    assert report.epochs == BRIEF.epochs
    assert report.heldout_documents > 0
    rates = {(rate.stack, rate.layer, rate.method, rate.asked): rate for rate in report.rates}
    layers = [(stack, layer) for stack, shape in stacks_of(recipe.model).items() for layer in shape.layers]
    assert len(rates) == 5 * 2 * (len(layers) + 1)
    assert {rates[stack, layer, method, 4].recall for stack, layer in layers for method in ("sida", "shuffled")} == {1.0}
    assert {advantage.method for advantage in report.advantages} == {"token", "previous", "frequency", "shuffled"}
    (frequent,) = [advantage for advantage in report.advantages if advantage.method == "frequency"]
    assert frequent.gain == pytest.approx(rates["", "", "sida", 2].recall - rates["", "", "frequency", 2].recall)


def test_the_text_that_it_was_fitted_on_is_refused(micro: Micro, tmp_path: Path) -> None:
    text = tmp_path / "own.txt"
    text.write_text("".join(Random(0).choices(ascii_lowercase, k=3000)))
    recipe = recipe_of(micro, "lm", "load.sequence_length=64", f"data.files.own={text}")
    fit_predictor(recipe, tmp_path / "p.safetensors", FitSettings(tokens=2000, epochs=1, width=4))
    predictor = ExpertPredictor.open(tmp_path / "p.safetensors", recipe)
    workload = make_workload(recipe)
    assert isinstance(workload, LanguageModelling)
    with pytest.raises(UsageError, match="of the sequences of the text 'own'"):
        predictor.check_unseen(token_sequences(workload.batches))


def test_forced_routing_and_too_little_memory_are_refused(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "p.safetensors"
    with pytest.raises(UsageError, match="which no token decides"):
        fit_predictor(recipe_of(micro, "lm", "routing.source=uniform"), out, BRIEF)
    monkeypatch.setattr(study, "available_memory", lambda device: 1000)
    with pytest.raises(MoeprofError, match=r"but 1,?000 B are free"):
        fit_predictor(recipe_of(micro, "lm"), out, BRIEF)
    assert not out.exists()


@pytest.mark.slow
def test_the_predictor_of_lm_tiny_is_better_than_all_that_it_is_compared_with(tmp_path: Path) -> None:
    report = fit_predictor(load_recipe("lm-tiny", []), tmp_path / "p.safetensors", FitSettings())
    assert {advantage.verdict for advantage in report.advantages} == {"better"}
    rates = {rate.method: rate.recall for rate in report.rates if not rate.layer and rate.asked == report.top_k}
    assert rates["sida"] > 0.7
    assert rates["shuffled"] == pytest.approx(rates["frequency"], abs=0.05)
