"""Checkpoint files: parameters, most of them in bfloat16, and their origin."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from safetensors.torch import save

from moeprof.models.build import Model
from moeprof.moe.router import Router
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import CurvePoint, Origin
from moeprof.records.system.files import reason, replacing
from moeprof.records.system.inputs import parsed_json

KEY = "moeprof"
"""The only metadata entry, JSON; the order of several is not fixed, which would change the file's hash."""


def write_checkpoint(path: Path, model: Model, origin: Origin) -> None:
    """Writes matrices in bfloat16, routers and vectors in float32."""
    exact = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Router)}
    tensors = {
        name: parameter.detach().to(torch.float32 if name in exact or parameter.dim() == 1 else torch.bfloat16).contiguous()
        for name, parameter in model.named_parameters()
    }
    with replacing(path) as partial:
        partial.write_bytes(save(tensors, {KEY: json.dumps(asdict(origin), sort_keys=True)}))


def read_origin(path: Path) -> Origin | None:
    """The origin that the checkpoint records; None if another program wrote it, UsageError if the entry is damaged."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        return None
    try:
        return TypeAdapter(Origin).validate_python(parsed_json(text))
    except ValueError as error:
        raise UsageError(
            f"checkpoint {path}: its record of training is damaged: {reason(error)}",
            "Fetch or train the checkpoint again.",
        ) from error


def origin_of(recipe: Recipe, *, twin: bool, hashes: dict[str, str], tokens: int, curve: list[CurvePoint]) -> Origin:
    """The recipe's decisive sections and the result of the training."""
    return Origin(decisive(recipe), twin, hashes, tokens, curve)


def decisive(recipe: Recipe) -> dict[str, Any]:
    """The keys of the recipe that determine the weights, together with the text."""
    document: dict[str, Any] = recipe.model_dump(
        mode="json",
        include={"workload": True, "model": True, "gating": {"top_k"}, "train": True, "measure": {"seed"}},
        exclude={"model": {"checkpoint", "dtype"} | recipe.unset_later_keys["model"]},
    )
    return document


def made_by(origin: Origin, recipe: Recipe) -> bool:
    """Whether the recipe still has the values of the origin; keys that did not exist then are ignored."""
    now = decisive(recipe)
    return all(
        now.get(name, {}).get(key) == value
        for name, section in origin.recipe.items()
        if isinstance(section, dict)
        for key, value in section.items()
    )
