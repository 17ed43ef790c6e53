"""Reads weights from safetensors files, memory-mapped and without pickle: one file of moeprof, or a folder in NLLB-MoE's layout."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from moeprof.models.fit import check_fits, check_type
from moeprof.models.nllb import NllbFolder
from moeprof.models.shard import Held, held, present
from moeprof.parallel.group import ALONE, Group
from moeprof.records.errors import UsageError


class Checkpoint(Protocol):
    """Opened weights, whatever their names and layout in the files."""

    def check(self, parts: Collection[Held]) -> None:
        """UsageError if the files lack a parameter, have another, or have one of another shape or of no real numbers."""

    def read(self, name: str, first: int, into: Tensor) -> None:
        """Fills `into` with the part of a parameter that begins at index `first` of its first dimension."""


class OneFile:
    """A file that has every parameter under its name."""

    def __init__(self, path: Path, file: Any) -> None:
        self.path, self.file = path, file

    def check(self, parts: Collection[Held]) -> None:
        shapes = {name: tuple(self.file.get_slice(name).get_shape()) for name in self.file.keys()}  # noqa: SIM118
        check_fits({part.name: part.whole for part in parts}, shapes, self.path)
        for part in parts:
            check_type(part.name, self.file.get_slice(part.name).get_dtype(), self.path)

    def read(self, name: str, first: int, into: Tensor) -> None:
        into.copy_(self.file.get_slice(name)[first : first + len(into)])


def load_checkpoint(model: nn.Module, path: Path, group: Group = ALONE) -> None:
    """Fills the model with its rank's weights; UsageError if a file is missing, damaged or of another shape.

    All shapes are checked before any weight is read, and only this rank's experts are read.
    """
    with opened(path) as checkpoint, torch.no_grad():
        checkpoint.check(list(held(model, group)))
        for part in present(model, group):
            checkpoint.read(part.name, part.first, part.parameter)


def check_checkpoint(model: nn.Module, path: Path, group: Group = ALONE) -> None:
    """UsageError if a file is missing or damaged, or has other shapes than the model (meta device or not) or no real numbers."""
    with opened(path) as checkpoint:
        checkpoint.check(list(held(model, group)))


@contextmanager
def opened(path: Path) -> Iterator[Checkpoint]:
    """Opens a checkpoint for reading: a file, or a folder."""
    if path.is_dir():
        with NllbFolder.opened(path) as folder:
            yield folder
    else:
        with opened_file(path) as file:
            yield OneFile(path, file)


@contextmanager
def opened_file(path: Path) -> Iterator[Any]:
    """Opens the file memory-mapped, after a check of its header and length."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise UsageError(f"checkpoint {path}: no such file", "Fix [model] checkpoint, or remove it.") from error
    except (SafetensorError, OSError) as error:
        raise UsageError(
            f"checkpoint {path}: truncated, or not a safetensors file", "Fetch or train the checkpoint again."
        ) from error
