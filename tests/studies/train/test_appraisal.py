"""What the card says of a checkpoint, and what changing the model does to it."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from moeprof.models.build import build_model
from moeprof.moe.layer import moe_layers, use_variant
from moeprof.moe.routing import Routing
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import recipe_folder
from moeprof.records.run.model_card import ModelCard
from moeprof.reporters.documents.model_card import CURVE_POINTS, render, thinned
from moeprof.studies.train.appraisal import appraise, twin_path
from moeprof.studies.train.changes import among_half, answers, at_random, coarse_experts, first_only, int4
from moeprof.studies.train.corpus import make_corpus
from moeprof.studies.train.heldout import cross_entropies
from moeprof.studies.train.own import OwnLearner
from moeprof.studies.train.study import train
from tests.models.shapes import small
from tests.workloads.documentation.releases import PAGES, stored_guide

from .lessons import Micro, Quiet, brief


def made(micro: Micro, folder: Path, workload: str, *overrides: str, with_twin: bool = False) -> ModelCard:
    recipe, out = brief(micro, workload, *overrides), folder / "model.safetensors"
    train(recipe, out, Quiet())
    if with_twin:
        train(recipe, twin_path(out), Quiet(), twin=True)
    return appraise(recipe, out, cpu_seconds=1.0)


def wording(text: str) -> list[str]:
    """The words of a card's headings, targets and captions, and of the first column of its tables, without numbers and names."""
    lines = [line.partition("|")[2].partition("|")[0] if line.startswith("|") else line for line in text.splitlines()]
    words = [re.sub(r"MISSED|met|lm-\w+|\w+==[\d.]+|\b[0-9a-f]{64}\b|[\d,.]+( [kM])?|:?-+", "", line).strip() for line in lines]
    return list(dict.fromkeys(word for word in words if word))


def test_the_card_of_a_language_model_with_its_twin(micro: Micro, tmp_path: Path) -> None:
    card = made(micro, tmp_path, "lm", with_twin=True)
    assert list(card.heldout) == ["prose", "code", "records"]
    assert card.twin is not None
    assert card.twin.tokens == card.origin.tokens
    assert [(use.phase, use.layer) for use in card.uses] == [("score", "1"), ("decode", "1")]
    assert set(card.uses[1].inactive) == {"prose", "code", "records"}
    assert card.uses[0].inactive == {}
    assert card.chrf == {}
    text = render(card, "lm-micro")
    for part in ("# lm-micro", "dense twin", "prose / code", "int4 experts", card.sha256, "bits per byte"):
        assert part in text


def test_the_shipped_card_has_the_wording_of_the_code_that_renders_cards(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored_guide(tmp_path, monkeypatch, PAGES)
    shipped = (recipe_folder() / "lm-tiny.md").read_text(encoding="utf-8")
    source = ('train.documentation="guide==1.0"', "train.documentation_steps=3", "train.documentation_smoothing=0.05")
    sets = (*source, 'train.optimizer="muon"')
    card = made(micro, tmp_path, "lm", *sets, with_twin="dense twin" in shipped)
    assert wording(render(card, "lm-micro")) == wording(shipped)


def test_the_card_of_a_translation_model(micro: Micro, tmp_path: Path) -> None:
    card = made(micro, tmp_path, "mt")
    assert set(card.chrf) == {"solvan", "dorvek", "imbari"}
    assert [(use.phase, use.layer) for use in card.uses] == [("encode", "enc.1"), ("decode", "dec.1")]
    assert card.twin is None
    assert "MISSED: chrF" in render(card, "mt-micro")


def test_a_checkpoint_of_other_settings_has_no_card(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    train(brief(micro, "lm"), out, Quiet())
    with pytest.raises(UsageError, match="not trained with this recipe"):
        appraise(brief(micro, "lm", "train.steps=7"), out)
    with pytest.raises(UsageError, match="the recipe's model has"):
        appraise(brief(micro, "lm", "model.dim=32"), out)
    train(brief(micro, "lm", "train.steps=3"), twin_path(out), Quiet(), twin=True)
    with pytest.raises(UsageError, match="model-twin"):
        appraise(brief(micro, "lm"), out)


def test_changes_are_undone_and_each_one_shows(micro: Micro) -> None:
    recipe = brief(micro, "lm")
    model = build_model(recipe)
    use_variant(model, None)
    for layer in moe_layers(model):
        layer.experts.w2.mul_(20)  # experts that matter
    learner = OwnLearner(model)
    heldout = make_corpus(recipe).heldout(4)
    usual = cross_entropies(learner, heldout)
    changed = answers(learner, heldout)
    assert len(changed) == 4
    assert all(found != usual for found in changed.values())
    assert cross_entropies(learner, heldout) == usual


GATES = torch.tensor([[0.1, 0.5, 0.15, 0.25], [0.4, 0.3, 0.2, 0.1]])
ROUTING = Routing(torch.tensor([[1, 3], [0, 1]]), torch.tensor([[0.5, 0.25], [0.4, 0.3]]), None, 4)


def test_what_the_changes_of_routing_choose() -> None:
    assert first_only(GATES, ROUTING).experts_TK.tolist() == [[1], [0]]
    half = among_half(GATES, ROUTING)
    assert half.experts_TK.tolist() == [[2, 0], [0, 2]]
    torch.testing.assert_close(half.probs_TK, torch.tensor([[0.15, 0.1], [0.4, 0.2]]))
    drawn = at_random(GATES.repeat(400, 1), ROUTING).experts_TK
    assert drawn[:, 0].ne(drawn[:, 1]).all()
    assert torch.bincount(drawn.flatten(), minlength=4).float().div(1600).sub(0.25).abs().max() < 0.05


def test_int4_keeps_fifteen_levels_per_group() -> None:
    weights_EDF = torch.randn(2, 70, 3, generator=torch.Generator().manual_seed(0))
    coarse = int4(weights_EDF).numpy()
    for first, last in ((0, 32), (32, 64), (64, 70)):
        exact, rounded = weights_EDF[:, first:last].numpy(), coarse[:, first:last]
        steps = np.abs(exact).max(axis=1, keepdims=True) / 7
        assert np.all(np.abs(exact - rounded) <= steps * 0.501)
        np.testing.assert_allclose(rounded / steps, np.round(rounded / steps), atol=1e-4)


def test_coarse_experts_come_back_exactly() -> None:
    model = build_model(small("lm"))
    layer = moe_layers(model)[0]
    before = layer.experts.w1.clone()
    with coarse_experts(OwnLearner(model)):
        assert not torch.equal(layer.experts.w1, before)
    assert torch.equal(layer.experts.w1, before)


def test_a_long_curve_is_thinned_to_its_end(micro: Micro, tmp_path: Path) -> None:
    recipe = brief(micro, "lm", "train.steps=20", "train.evaluate_every=1")
    curve = train(recipe, tmp_path / "model.safetensors", Quiet()).curve
    assert len(curve) == 20
    assert len(thinned(curve)) <= CURVE_POINTS
    assert thinned(curve)[-1].step == 20
