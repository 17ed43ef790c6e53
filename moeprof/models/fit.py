"""Whether the tensors of a checkpoint are those of a recipe's model."""

from collections.abc import Mapping
from pathlib import Path

from moeprof.records.errors import UsageError

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that can be read, as safetensors names them."""


def check_type(name: str, found: str, path: Path) -> None:
    """UsageError if a tensor's type, as safetensors names it, is not one of FLOATS."""
    if found not in FLOATS:
        raise UsageError(
            f"checkpoint {path}: {name} is of type {found}; weights are {', '.join(FLOATS)}",
            "Save the weights as float32, float16 or bfloat16; quantized weights must be dequantized first.",
        )


def check_fits(wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """UsageError that names the first tensor with different shapes in the recipe and the file."""
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            raise UsageError(
                f"checkpoint {path}: {name} is {found.get(name, 'absent')}, the recipe's model has {wanted.get(name, 'none')}",
                "Use the recipe that the checkpoint was trained with, or --set model.checkpoint= for random weights.",
            )
