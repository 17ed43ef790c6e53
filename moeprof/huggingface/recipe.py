"""Recipes of Hugging Face models: the one behind `--model`, and what a model says of itself in any."""

from pathlib import Path
from typing import Any

from moeprof.records.name import name_from
from moeprof.records.recipe.files import validated
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe

SEQUENCE_LENGTH, PROMPT_LENGTH, DECODE_STEPS = 512, 128, 32
CAPACITY_FACTOR = 1.25
"""Capacity of a model that has none, over the choices that an expert would get if they were spread evenly."""


def document_of(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """The recipe behind `--model`, not yet validated: a folder or an id, further keys of the section, and defaults."""
    from moeprof.huggingface.folder import open_folder

    folder = open_folder(model)
    return {
        "schema": 1,
        "name": name_from(Path(model.rstrip("/")).name or "model", "model"),
        "workload": "mt" if folder.config.get("is_encoder_decoder") else "lm",
        "model": {"huggingface": model, **settings},
        "load": {
            "batch_size": 1,
            "batches": 2,
            "sequence_length": SEQUENCE_LENGTH,
            "prompt_length": PROMPT_LENGTH,
            "decode_steps": DECODE_STEPS,
        },
        "measure": {"rounds": 6},
    }


def resolved(recipe: Recipe) -> Recipe:
    """The recipe with everything that its model says of itself; one of moeprof's own models stays as it is."""
    if not isinstance(recipe.model, HuggingFaceSection):
        return recipe
    from moeprof.huggingface.description import described

    section, top_k = described(recipe.model, recipe.measure.device)
    document = recipe.model_dump(by_alias=True) | {"model": section.model_dump()}
    document["gating"]["top_k"] = top_k
    if "capacity_fraction" not in recipe.gating.model_fields_set:
        document["gating"]["capacity_fraction"] = min(CAPACITY_FACTOR * top_k / section.experts, 1.0)
    shorten(document, recipe, section.max_positions)
    return validated(document, recipe.name)


def shorten(document: dict[str, Any], recipe: Recipe, max_positions: int) -> None:
    """Shortens default lengths to the positions of the model; lengths that were chosen stay."""
    defaults = (SEQUENCE_LENGTH, PROMPT_LENGTH, DECODE_STEPS)
    load = document["load"]
    if not max_positions or (load["sequence_length"], load["prompt_length"], load["decode_steps"]) != defaults:
        return
    load["sequence_length"] = min(SEQUENCE_LENGTH, max_positions)
    load["decode_steps"] = min(DECODE_STEPS, max(max_positions // 4, 1))
    load["prompt_length"] = min(PROMPT_LENGTH, max(max_positions - load["decode_steps"], 1))
