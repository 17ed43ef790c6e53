"""Checkpoints: a file of parameters, most of them in bfloat16, or a folder in Hugging Face layout; and their origin."""

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
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import CurvePoint, Origin
from moeprof.records.system.files import reason, replacing
from moeprof.records.system.parsing import parsed_json
from moeprof.store.checkpoint_folder import WEIGHTS, read_configuration

KEY = "moeprof"
"""The only metadata entry, JSON; the order of several is not fixed, which would change the file's hash."""

ORIGIN = "training.json"
"""What the weights of a checkpoint that is a folder were made from."""

NOT_DECISIVE = ("architectures", "dtype", "transformers_version")
"""Keys of a configuration that do not determine the weights."""


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
    text = origin_text(path)
    if text is None:
        return None
    try:
        return TypeAdapter(Origin).validate_python(parsed_json(text))
    except ValueError as error:
        raise UsageError(
            f"checkpoint {path}: its record of training is damaged: {reason(error)}",
            "Fetch or train the checkpoint again.",
        ) from error


def origin_text(path: Path) -> str | None:
    """The JSON of the origin, in the metadata of a checkpoint file or beside the weights in a folder; None if there is none."""
    if path.is_dir():
        file = path / ORIGIN
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    with safe_open(path, framework="pt") as opened:
        return (opened.metadata() or {}).get(KEY)


def weights_file(path: Path) -> Path:
    """The file with the weights of a checkpoint."""
    return path / WEIGHTS if path.is_dir() else path


def origin_of(recipe: Recipe, *, twin: bool, hashes: dict[str, str], tokens: int, curve: list[CurvePoint]) -> Origin:
    """The recipe's decisive sections and the result of the training."""
    return Origin(decisive(recipe), twin, hashes, tokens, curve)


def decisive(recipe: Recipe) -> dict[str, Any]:
    """The keys of the recipe that determine the weights, together with the text."""
    kept: dict[str, Any] = {"workload": True, "train": True, "measure": {"seed"}}
    if isinstance(recipe.model, HuggingFaceSection):
        config = {key: value for key, value in read_config(recipe).items() if key not in NOT_DECISIVE}
        return recipe.model_dump(mode="json", include=kept) | {"model": config}
    return recipe.model_dump(
        mode="json",
        include=kept | {"model": True, "gating": {"top_k"}},
        exclude={"model": {"checkpoint", "dtype"} | recipe.unset_later_keys["model"]},
    )


def read_config(recipe: Recipe) -> dict[str, Any]:
    """The configuration of a recipe's Hugging Face model; UsageError if its folder has none."""
    assert isinstance(recipe.model, HuggingFaceSection)
    return read_configuration(Path(recipe.model.huggingface), recipe.model.huggingface)


def made_by(origin: Origin, recipe: Recipe) -> bool:
    """Whether the recipe still has the values of the origin; keys that did not exist then are ignored."""
    now = decisive(recipe)
    return all(
        now.get(name, {}).get(key) == value
        for name, section in origin.recipe.items()
        if isinstance(section, dict)
        for key, value in section.items()
    )
