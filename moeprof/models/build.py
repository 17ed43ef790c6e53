"""Builds the model of a recipe, with weights and ready to run."""

from collections.abc import Collection
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from moeprof.models.checkpoint import load_checkpoint
from moeprof.models.initialise import initialise
from moeprof.models.language_model import LanguageModel
from moeprof.models.translation_model import TranslationModel
from moeprof.moe.layer import connect, moe_layers
from moeprof.moe.router import Router
from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.recipe import Recipe

Model = LanguageModel | TranslationModel

ARCHITECTURES: dict[str, type[Model]] = {"decoder-only": LanguageModel, "encoder-decoder": TranslationModel}
"""The modules of all families, by the names of `records.recipe.family`."""


def make_model(recipe: Recipe, *, dense: bool = False) -> Model:
    """One rank's share of the recipe's model on the meta device, without memory or values."""
    with torch.device("meta"):
        model = ARCHITECTURES[recipe.family_name](recipe, dense=dense).to(getattr(torch, recipe.model.dtype))
        for module in model.modules():
            if isinstance(module, Router):
                module.float()
    return model.eval().requires_grad_(False)


def build_model(recipe: Recipe, *, dense: bool = False, group: Group = ALONE, absent: Collection[str] = ()) -> Model:
    """One rank's share of the recipe's model, on its device and connected to the other ranks.

    It has the checkpoint's weights, or seeded random ones (the dense twin always has those). Experts of the layers in `absent`
    get no memory.
    """
    model = make_model(recipe, dense=dense)
    behind = {layer.experts for layer in moe_layers(model) if layer.name in absent}
    for module in model.modules():
        if module not in behind:
            module._apply(partial(without_values, device=recipe.measure.device), recurse=False)  # type: ignore[no-untyped-call]
    if recipe.model.checkpoint and not dense:
        load_checkpoint(model, Path(recipe.model.checkpoint), group)
    else:
        initialise(model, recipe.measure.seed, group)
    connect(model, group)
    return model


def without_values(tensor: Tensor, device: str) -> Tensor:
    """As `empty_like` gives it; of a meta tensor, that imports torch's symbolic shapes first, which takes most of a second."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)


def num_parameters(model: nn.Module) -> int:
    """Number of all parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())
