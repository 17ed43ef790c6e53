"""Finds recipes by built-in name or path, reads them and applies overrides."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

import moeprof
from moeprof.records.errors import UsageError, escaped, suggestion
from moeprof.records.name import name_from
from moeprof.records.recipe.model import MODEL_SECTIONS
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.system.parsing import parsed_toml

PACKAGE = Path(moeprof.__file__).parent
TRACE = "trace:"
MAX_CHARS = 2**20
"""The most characters of a recipe, which has some thousand; Python reads about a million characters of TOML per second."""

UNION_MEMBERS = ("str", "list[str]", "[key]")
"""What pydantic reports as if it were a key: alternatives of a value, and the name of an entry."""

RECIPE_FOLDERS = (PACKAGE / "recipes", PACKAGE.parent / "recipes")
"""The folder inside the wheel, then that of the checkout; an editable install has only the latter."""


def recipe_folder(candidates: Sequence[Path] = RECIPE_FOLDERS) -> Path:
    """The folder of built-in recipes."""
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise UsageError(
        f"built-in recipes are missing: neither {' nor '.join(map(str, candidates))} exists",
        "Reinstall moeprof, or give the path of a recipe file.",
    )


def builtin_names() -> list[str]:
    """The names of the built-in recipes: LM before MT, small before large."""
    paths = sorted(recipe_folder().glob("*.toml"))
    sizes = {path.stem: load_recipe(path.stem) for path in paths}
    return sorted(sizes, key=lambda name: (sizes[name].workload, sizes[name].model.dim, sizes[name].model.experts))


def is_builtin(reference: str) -> bool:
    """Whether this is the name of a built-in recipe, and not a path."""
    return os.sep not in reference and (recipe_folder() / f"{reference}.toml").is_file()


def find_recipe(reference: str) -> Path:
    """The file behind a built-in name or a path."""
    path = Path(reference)
    if path.suffix.lower() == ".toml" or os.sep in reference:
        return path
    folder = recipe_folder()
    if (builtin := folder / f"{reference}.toml").is_file():
        return builtin
    known = sorted(path.stem for path in folder.glob("*.toml"))
    raise UsageError(
        f"recipe {reference!r}: unknown built-in recipe",
        f"{suggestion(reference, known)}Use one of {', '.join(known)}, or the path of a .toml file.",
    )


def load_recipe(reference: str, overrides: Iterable[str] = ()) -> Recipe:
    """The validated recipe, with `section.key=value` overrides applied.

    Paths become absolute: in the file relative to its folder, in overrides relative to the working directory.
    """
    path = find_recipe(reference)
    with reported(f"recipe {path}", "Give a built-in name or a readable .toml file."):
        text = InputFile(path).text()
        if len(text) > MAX_CHARS:
            raise ValueError(f"{len(text):,} characters are more than the {MAX_CHARS:,} of a recipe")
    try:
        document = parsed_toml(text)
    except ValueError as error:  # ValueError: also an integer of thousands of digits
        raise UsageError(f"recipe {path}: not valid TOML: {error}", "Fix that line.") from error
    document.setdefault("name", name_from(path.stem, "recipe"))
    anchor_paths(document, path.parent)
    return overridden(document, overrides, str(path))


def overridden(document: dict[str, Any], overrides: Iterable[str], where: str) -> Recipe:
    """The validated recipe, with `section.key=value` overrides applied, whose paths are relative to the working directory."""
    for override in overrides:
        apply_override(document, override)
    anchor_paths(document, Path.cwd())
    return validated(document, where)


def validated(document: dict[str, Any], where: str) -> Recipe:
    """Validates a document as a recipe; UsageError names the file, the key and the most similar known key."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        found = [str(part) for part in first["loc"] if part not in UNION_MEMBERS]
        location = [escaped(part) for index, part in enumerate(found) if index != 1 or found[0] != "model"]
        key = ".".join(location) or "recipe"
        if first["type"] == "extra_forbidden":
            known = known_keys(found[:-1])
            raise UsageError(
                f"recipe {where}: {key}: unknown key",
                f"{suggestion(location[-1], known)}Known here: {', '.join(known)}.",
            ) from error
        own_check = first["type"] == "value_error" and len(location) < 2 and key != "name"
        if own_check:  # the message of a section's check names the keys
            raise UsageError(
                f"recipe {where}: {first['ctx']['error']!s}", "Change the value in the file or with --set."
            ) from error
        raise UsageError(
            f"recipe {where}: {key}: {complaint(first)}",
            f"Change it in the file or with --set {key}=VALUE; `moeprof recipes show lm-tiny` prints a valid recipe.",
        ) from error


def complaint(error: ErrorDetails) -> str:
    """What is wrong with a value, followed by the value."""
    messages = {
        "missing": "required key is missing",
        "model_type": "must be a section",
        "value_error": str(error.get("ctx", {}).get("error")),
    }
    message = messages.get(error["type"], error["msg"].lower().replace("input should be", "must be"))
    return message if error["type"] in ("missing", "value_error") else f"{message}, got {error['input']!r}"


def apply_override(document: dict[str, Any], override: str) -> None:
    """Sets one key from `section.key=value`; the value is read as TOML if possible, else as a string."""
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UsageError(f"--set {override}: not of the form SECTION.KEY=VALUE", "Example: --set gating.top_k=1")
    value: Any = text
    with suppress(ValueError):
        read = parsed_toml(f"value = {text}")
        value = read["value"] if len(read) == 1 else text
    section = document
    for part in parts[:-1]:
        section = section.setdefault(part, {})
        if not isinstance(section, dict):
            raise UsageError(f"--set {override}: {part!r} is a value, not a section", "Example: --set load.batch_size=4")
    section[parts[-1]] = value


def anchor_paths(document: dict[str, Any], folder: Path) -> None:
    """Makes the paths of checkpoint, data files and routing trace, which are relative to `folder`, absolute."""
    model, data, routing = (document.get(section) for section in ("model", "data", "routing"))
    if isinstance(model, dict) and isinstance(model.get("checkpoint"), str):
        model["checkpoint"] = anchored(model["checkpoint"], folder) if model["checkpoint"] else None
    if isinstance(model, dict) and isinstance(name := model.get("huggingface"), str) and (folder / name).is_dir():
        model["huggingface"] = name if folder == Path.cwd() else anchored(name, folder)
    if isinstance(data, dict) and isinstance(data.get("files"), dict):
        data["files"] = {
            name: [anchored(path, folder) for path in paths] if isinstance(paths, list) else anchored(paths, folder)
            for name, paths in data["files"].items()
        }
    if isinstance(routing, dict) and str(routing.get("source")).startswith(TRACE):
        routing["source"] = TRACE + anchored(routing["source"].removeprefix(TRACE), folder)


def anchored(path: Any, folder: Path) -> Any:
    return str((folder / path).resolve()) if isinstance(path, str) else path


def known_keys(location: Sequence[str]) -> list[str]:
    """The known keys of the section at `location`."""
    section: Any = Recipe
    for part in location:
        section = MODEL_SECTIONS[part] if part in MODEL_SECTIONS else section.model_fields[part].annotation
    assert issubclass(section, BaseModel)
    return sorted(field.alias or name for name, field in section.model_fields.items())
