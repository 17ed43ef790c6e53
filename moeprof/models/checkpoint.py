"""Weights in safetensors files, memory-mapped and never unpickled."""

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


def load_checkpoint(model: nn.Module, path: Path, group: Group = ALONE) -> None:
    """Fills the model with what its rank holds; UsageError where the file is missing, damaged, or of another shape.

    Nothing is filled before that, and only this rank's experts are read.
    """
    check_checkpoint(model, path, group)
    with opened(path) as file, torch.no_grad():
        for part in present(model, group):
            part.parameter.copy_(file.get_slice(part.name)[part.first : part.first + len(part.parameter)])


def check_checkpoint(model: nn.Module, path: Path, group: Group = ALONE) -> None:
    """UsageError where the file is missing, damaged, or of another shape than the model; the model may be on meta."""
    wanted = {part.name: part.whole for part in held(model, group)}
    with opened(path) as file:
        check_fits(wanted, {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, path)  # noqa: SIM118


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The file, memory-mapped; its header and its length are checked here."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UsageError(f"checkpoint {path}: there is no such file", "Mend [model] checkpoint, or leave it out.") from error
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"checkpoint {path}: truncated, or no safetensors file: {error}", "Fetch or train the checkpoint again."
        ) from error


def check_fits(wanted: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], path: Path) -> None:
    """UsageError naming the first tensor that the recipe and the file do not share."""
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise UsageError(
                f"checkpoint {path}: {name} is {found.get(name, 'absent')}, the recipe's model has {wanted.get(name, 'none')}",
                "Use the recipe that the checkpoint was trained with, or --set model.checkpoint= for random weights.",
            )
