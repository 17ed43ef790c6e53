"""Which weights a model has, by a hash: of its checkpoint, or of what random ones follow from."""

import hashlib
from pathlib import Path

from moeprof.records.recipe.recipe import Recipe


def weights_hash(recipe: Recipe) -> str:
    """SHA-256 of the checkpoint, or of what random weights follow from."""
    if recipe.model.checkpoint:
        return file_hash(Path(recipe.model.checkpoint))
    shape = recipe.model.model_dump_json(exclude=recipe.unset_later_keys["model"])
    return hashlib.sha256(f"{shape} {recipe.measure.seed}".encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
