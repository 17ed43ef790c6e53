"""Muon moves matrices by steps of equal size in every direction; a state holds all that the next update needs."""

import math
from pathlib import Path

import pytest
import torch

from moeprof.records.recipe.files import load_recipe
from moeprof.studies.train import study
from moeprof.studies.train.muon import MOMENTUM, Muon, orthogonalized
from moeprof.studies.train.optimizer import MUON_RATE, make_optimizers, set_learning_rate
from moeprof.studies.train.own import OwnLearner
from moeprof.studies.train.state import state_path

from .lessons import Micro, Quiet, brief, weights


@pytest.mark.parametrize("shape", [(3, 20, 30), (3, 30, 20), (1, 16, 16)])
def test_singular_values_become_nearly_one_and_singular_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for before, after in zip(matrices, orthogonalized(matrices), strict=True):
        left, _, right = torch.linalg.svd(before, full_matrices=False)
        aligned = left.T @ after @ right.T
        assert aligned.diagonal()[:-3].sub(1).abs().max() < 0.4
        assert (aligned - torch.diag(aligned.diagonal())).abs().max() < 0.05


def test_a_stack_of_matrices_is_updated_as_if_they_were_alone() -> None:
    random = torch.Generator().manual_seed(1)
    stack = torch.nn.Parameter(torch.randn(4, 12, 6, generator=random))
    alone = [torch.nn.Parameter(matrix.detach().clone()) for matrix in stack]
    optimizers = Muon([stack], 0.1, 0.0), Muon(alone, 0.1, 0.0)
    for _ in range(3):
        stack.grad = torch.randn(stack.shape, generator=random)
        for matrix, gradient in zip(alone, stack.grad, strict=True):
            matrix.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    torch.testing.assert_close(stack, torch.stack(list(alone)), atol=1e-2, rtol=0)


def test_an_update_is_the_orthogonalized_momentum_and_weight_decay() -> None:
    matrix = torch.nn.Parameter(torch.ones(8, 4))
    gradients = [torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    optimizer, expected, momentum = Muon([matrix], 0.5, 0.1), torch.ones(8, 4), torch.zeros(8, 4)
    for gradient in gradients:
        matrix.grad = gradient.clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + gradient
        direction = orthogonalized((gradient + MOMENTUM * momentum)[None])[0]
        expected = expected * (1 - 0.5 * 0.1) - 0.5 * math.sqrt(8 / 4) * direction
    torch.testing.assert_close(matrix.detach(), expected)


def test_every_parameter_has_one_optimizer_and_muon_has_the_inner_matrices(micro: Micro) -> None:
    recipe = brief(micro, "lm", 'train.optimizer="muon"')
    learner = OwnLearner.untrained(recipe, twin=False)
    names = {parameter: name for name, parameter in learner.model.named_parameters()}
    adamw, muon = (
        [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
        for optimizer in make_optimizers(learner, recipe.train)
    )
    assert sorted(adamw + muon) == sorted(names.values())
    layer = [f"layers.{index}.attention.{part}.weight" for index in (0, 1) for part in ("q", "k", "v", "out")]
    assert set(muon) == {
        *layer,
        "layers.0.ffn.w1.weight",
        "layers.0.ffn.w2.weight",
        "layers.1.ffn.experts.w1",
        "layers.1.ffn.experts.w2",
    }


def test_muon_has_a_multiple_of_the_learning_rate(micro: Micro) -> None:
    recipe = brief(micro, "lm", 'train.optimizer="muon"')
    optimizers = make_optimizers(OwnLearner.untrained(recipe, twin=False), recipe.train)
    set_learning_rate(optimizers, 0.25)
    assert [{group["lr"] for group in optimizer.param_groups} for optimizer in optimizers] == [{0.25}, {0.25 * MUON_RATE}]


def test_a_training_with_muon_that_was_interrupted_ends_with_the_same_weights(micro: Micro, tmp_path: Path) -> None:
    recipe = brief(micro, "lm", 'train.optimizer="muon"')
    whole, parts = tmp_path / "whole.safetensors", tmp_path / "parts.safetensors"
    study.train(recipe, whole, Quiet())
    with pytest.raises(KeyboardInterrupt):
        study.train(recipe, parts, Quiet(stop_after=3))
    assert state_path(parts).exists()
    study.train(recipe, parts, Quiet())
    assert whole.read_bytes() == parts.read_bytes()
    untrained = dict(OwnLearner.untrained(recipe, twin=False).model.named_parameters())
    assert all(not torch.equal(parameter, untrained[name]) for name, parameter in weights(recipe, whole).items())


def test_the_recipe_chooses_the_optimizer(micro: Micro) -> None:
    learner, recipe = OwnLearner.untrained(brief(micro, "lm"), twin=False), load_recipe(str(micro("lm")))
    assert [type(optimizer) for optimizer in make_optimizers(learner, recipe.train)] == [torch.optim.AdamW]
