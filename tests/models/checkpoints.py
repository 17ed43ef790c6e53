"""Checkpoints for tests."""

from pathlib import Path

from safetensors.torch import save_file
from torch import nn


def save_checkpoint(model: nn.Module, path: Path) -> None:
    """Writes every parameter under its name."""
    save_file({name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}, path)
