"""The finished product: parameters in half the bytes, and beside them what they came from."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import safe_open
from safetensors.torch import save

from moeprof.models.build import Model
from moeprof.moe.router import Router
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.files import reason, replacing
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import CurvePoint, Origin

KEY = "moeprof"
"""The one metadata entry, JSON; one alone, since the order of several is not fixed and the file's hash is to be."""


def write_checkpoint(path: Path, model: Model, origin: Origin) -> None:
    """Matrices in bfloat16, routers and vectors in float32."""
    exact = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Router)}
    tensors = {
        name: parameter.detach().to(torch.float32 if name in exact or parameter.dim() == 1 else torch.bfloat16).contiguous()
        for name, parameter in model.named_parameters()
    }
    with writing(path) as partial:
        partial.write_bytes(save(tensors, {KEY: json.dumps(asdict(origin), sort_keys=True)}))


def read_origin(path: Path) -> Origin | None:
    """What the checkpoint tells about itself; None where another program wrote it, UsageError where it cannot be understood."""
    with safe_open(path, framework="pt") as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        return None
    try:
        return TypeAdapter(Origin).validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"checkpoint {path}: what it says of its training is damaged: {reason(error)}",
            "Fetch or train the checkpoint again.",
        ) from error


def origin_of(recipe: Recipe, *, twin: bool, hashes: dict[str, str], tokens: int, curve: list[CurvePoint]) -> Origin:
    """The recipe's decisive sections, and what came of them."""
    return Origin(decisive(recipe), twin, hashes, tokens, curve)


def decisive(recipe: Recipe) -> dict[str, Any]:
    """The keys that decide the weights, beside the text."""
    document: dict[str, Any] = recipe.model_dump(
        mode="json",
        include={"workload": True, "model": True, "gating": {"top_k"}, "train": True, "measure": {"seed"}},
        exclude={"model": {"checkpoint", "dtype"} | recipe.unset_later_keys},
    )
    return document


def made_by(origin: Origin, recipe: Recipe) -> bool:
    """Whether the recipe still says what it said then; keys that came later do not matter."""
    now = decisive(recipe)
    return all(
        now.get(name, {}).get(key) == value
        for name, section in origin.recipe.items()
        if isinstance(section, dict)
        for key, value in section.items()
    )


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to, which then takes the place of `path`; MoeprofError where the disk is full or closed to us."""
    try:
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise MoeprofError(
            f"{path}: cannot be written: {reason(error)}", "Make room there, or give another --out; what was there is unharmed."
        ) from error
