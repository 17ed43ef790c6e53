"""The state of an unfinished training: weights, moments and curve, in one safetensors file beside the later checkpoint."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import CurvePoint
from moeprof.records.system.files import reason, replacing
from moeprof.records.system.parsing import parsed_json
from moeprof.studies.train.checkpoint import decisive
from moeprof.studies.train.optimizer import Optimizers, moments, restore_moments

WEIGHT = "weight/"
SUFFIX = ".state"


@dataclass
class Course:
    """The progress of a training."""

    step: int = 0
    tokens: int = 0
    cpu_seconds: float = 0.0
    recent: list[float] = field(default_factory=list)
    """Losses since the last point of the curve."""
    curve: list[CurvePoint] = field(default_factory=list)


def state_path(out: Path) -> Path:
    """The path of the state file, beside the checkpoint."""
    return out.with_name(out.name + SUFFIX)


def fingerprint(recipe: Recipe, *, twin: bool) -> str:
    """A hash of everything that determines the weights."""
    parts = json.dumps([decisive(recipe), recipe.data.model_dump(), twin], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()


def save_state(path: Path, model: nn.Module, optimizers: Optimizers, course: Course, mark: str) -> None:
    """Replaces the state file atomically."""
    weights = {WEIGHT + name: parameter.detach() for name, parameter in model.named_parameters()}
    header = {"fingerprint": mark, "course": json.dumps(asdict(course))}
    with replacing(path) as partial:
        partial.write_bytes(save(weights | moments(model, optimizers), header))


def load_state(path: Path, model: nn.Module, optimizers: Optimizers, mark: str) -> Course:
    """Restores model and optimizers; UsageError for a damaged state or one of another recipe."""
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            course = parsed_json(header["course"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UsageError(f"training state {path}: damaged: {reason(error)}", "Start again with --force.") from error
    if header.get("fingerprint") != mark:
        raise UsageError(
            f"training state {path}: made with another recipe or other settings",
            "Repeat the command that was interrupted, give another --out, or start again with --force.",
        )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[WEIGHT + name])
    restore_moments(model, optimizers, tensors, course["step"])
    course["curve"] = [CurvePoint(**point) for point in course["curve"]]
    return Course(**course)
