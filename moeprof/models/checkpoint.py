"""Reads weights from safetensors files, memory-mapped and without pickle."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from moeprof.models.shard import held, present
from moeprof.parallel.group import ALONE, Group
from moeprof.records.errors import UsageError

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that can be read, as safetensors names them."""


def load_checkpoint(model: nn.Module, path: Path, group: Group = ALONE) -> None:
    """Fills the model with its rank's weights; UsageError if the file is missing, damaged or of another shape.

    All shapes are checked before any weight is read, and only this rank's experts are read.
    """
    check_checkpoint(model, path, group)
    with opened(path) as file, torch.no_grad():
        for part in present(model, group):
            part.parameter.copy_(file.get_slice(part.name)[part.first : part.first + len(part.parameter)])


def check_checkpoint(model: nn.Module, path: Path, group: Group = ALONE) -> None:
    """UsageError if the file is missing or damaged, or has other shapes than the model (meta device or not) or no real numbers."""
    wanted = {part.name: part.whole for part in held(model, group)}
    with opened(path) as file:
        check_fits(wanted, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, path)  # noqa: SIM118
        for name in wanted:
            check_type(name, file.get_slice(name).get_dtype(), path)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Opens the file memory-mapped, after a check of its header and length."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UsageError(f"checkpoint {path}: no such file", "Fix [model] checkpoint, or remove it.") from error
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"checkpoint {path}: truncated, or not a safetensors file: {error}", "Fetch or train the checkpoint again."
        ) from error


def check_type(name: str, found: str, path: Path) -> None:
    """UsageError if a tensor's type, as safetensors names it, is not one of FLOATS."""
    if found not in FLOATS:
        raise UsageError(
            f"checkpoint {path}: {name} is of type {found}; weights are {', '.join(FLOATS)}",
            "Save the weights as float32, float16 or bfloat16; quantized weights must be dequantized first.",
        )


def check_fits(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], path: Path) -> None:
    """UsageError that names the first tensor with different shapes in the recipe and the file."""
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise UsageError(
                f"checkpoint {path}: {name} is {found.get(name, 'absent')}, the recipe's model has {wanted.get(name, 'none')}",
                "Use the recipe that the checkpoint was trained with, or --set model.checkpoint= for random weights.",
            )
