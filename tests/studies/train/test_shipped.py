"""The checkpoints that come with the package keep what their cards promise."""

import pytest
import torch

from moeprof.analysis.quality import chrf, whole_sentences
from moeprof.models.build import build_model
from moeprof.moe.layer import use_variant
from moeprof.records.recipe.files import load_recipe, recipe_folder
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.weights import file_hash
from moeprof.records.run.model_card import LayerUse
from moeprof.studies.passes.quality import OwnText, score, translated
from moeprof.studies.train.checkpoint import made_by, read_origin
from moeprof.studies.train.usage import layer_uses
from moeprof.workloads.episodes import DecodeEpisode, Episode, ForwardEpisode
from moeprof.workloads.registry import make_workload
from moeprof.workloads.tokenizers import make_tokenizer

SHIPPED = pytest.mark.parametrize("name", ["lm-tiny", "mt-tiny"])
BATCH_16 = ("load.batch_size=16", "load.batches=1")
FEW = {"lm-tiny": (*BATCH_16, "load.decode_steps=12"), "mt-tiny": BATCH_16}


def worked(name: str) -> tuple[Recipe, dict[str, list[Episode]], list[LayerUse]]:
    """One batch of every domain in every phase."""
    recipe = load_recipe(name, FEW[name])
    workload = make_workload(recipe)
    with torch.inference_mode():
        model = build_model(recipe)
        use_variant(model, None)
        episodes: dict[str, list[Episode]] = {phase: workload.episodes(phase) for phase in recipe.phases}
        return recipe, episodes, layer_uses(model, recipe, episodes)


@SHIPPED
def test_the_file_is_small_is_of_this_recipe_and_is_the_one_on_the_card(name: str) -> None:
    path = recipe_folder() / f"{name}.safetensors"
    recipe = load_recipe(name)
    assert recipe.model.checkpoint == str(path)
    assert path.stat().st_size <= 8_000_000
    origin = read_origin(path)
    assert origin is not None
    assert made_by(origin, recipe)
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert file_hash(path) in card
    assert "MISSED" not in card


@SHIPPED
def test_experts_are_all_alive_and_domains_use_different_ones(name: str) -> None:
    recipe, _, uses = worked(name)
    assert [use.dead_experts for use in uses if use.phase != "decode"] == [0, 0]
    assert min(jaccard for use in uses for jaccard in use.hot_jaccard.values()) <= 0.5
    decoding = [use for use in uses if use.phase == "decode"]
    idle = [share for use in decoding for share in use.inactive.values()]
    assert len(idle) == 2 * 3
    assert sum(idle) / len(idle) >= 0.3
    assert decoding[0].inactive_bound == 1 - min(recipe.model.experts, 32) / recipe.model.experts


def test_translations_are_nearly_right_in_every_language() -> None:
    recipe, episodes, _ = worked("mt-tiny")
    tokenizer = make_tokenizer("words", recipe.model.vocab_size)
    for episode in episodes["decode"]:
        assert isinstance(episode, DecodeEpisode)
        assert chrf(whole_sentences(translated(episode, tokenizer))) >= 90


def test_the_language_model_predicts_every_domain_as_its_card_says() -> None:
    recipe = load_recipe("lm-tiny", ("load.batch_size=16", "load.batches=1", "load.sequence_length=256"))
    origin = read_origin(recipe_folder() / "lm-tiny.safetensors")
    assert origin is not None
    with torch.inference_mode():
        model = build_model(recipe)
        use_variant(model, None)
        for episode in make_workload(recipe).episodes("score"):
            assert isinstance(episode, ForwardEpisode)
            found = score(model, episode, OwnText(make_tokenizer("bytes", 260)))
            assert found.per_token == pytest.approx(origin.curve[-1].heldout[episode.domain], rel=0.15)
