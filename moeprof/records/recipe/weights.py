"""Which weights a model has, by a hash: of its checkpoint, or of what random ones follow from."""

import hashlib
from pathlib import Path

from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe


def weights_hash(recipe: Recipe) -> str:
    """SHA-256 of the checkpoint (of the hashes of its files if it is a folder), or of what random weights follow from."""
    if isinstance(recipe.model, HuggingFaceSection):
        return recipe.model.weights_hash
    if recipe.model.checkpoint:
        path = Path(recipe.model.checkpoint)
        return folder_hash(path) if path.is_dir() else file_hash(path)
    shape = recipe.model.model_dump_json(exclude=recipe.unset_later_keys["model"])
    return hashlib.sha256(f"{shape} {recipe.measure.seed}".encode()).hexdigest()


def folder_hash(path: Path) -> str:
    """SHA-256 of the hashes of a folder's files of weights, in the order of their names."""
    return hashlib.sha256("".join(file_hash(file) for file in sorted(path.glob("*.safetensors"))).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
