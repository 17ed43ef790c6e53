"""The options that all commands that run recipes share."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_COUNT, MAX_RANKS
from moeprof.records.recipe.files import load_recipe, overridden, validated
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_RECIPES = ("lm-tiny", "mt-tiny")

SETTINGS = {"max_tokens": "data", "too_long": "data", "ranks": "parallel", "device": "measure"}
"""Options that set a recipe's key of the same name, and its section."""

MODEL_SETTINGS = ("dtype", "device_map", "experts_backend", "dense_twin", "trust_remote_code", "chat", "keep_tokens")
"""Options that set a key of the section of a Hugging Face model."""

ModelSettings = Mapping[str, int | str | bool | None]
NONE: ModelSettings = {}


def full_option(function: F) -> F:
    """Adds the option `--full` to a command that prints runs."""
    help_text = "Print the full report, as markdown into a pipe, and not only what fits on a screen."
    return click.option("--full", is_flag=True, help=help_text)(function)


def run_options(function: F) -> F:
    """Adds the RECIPE arguments and the options that change a recipe, its text and the output folder."""
    for decorator in reversed(
        (
            click.argument("recipes", nargs=-1, metavar="[RECIPE]..."),
            click.option(
                "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable."
            ),
            click.option(
                "--data",
                multiple=True,
                metavar="[NAME=]PATH",
                help="Use your own text (translation: [NAME=]SOURCE,TARGET); without NAME it is named after the file; repeatable.",
            ),
            click.option(
                "--max-tokens", type=click.IntRange(1, MAX_COUNT), metavar="N", help="Read at most N tokens of each text."
            ),
            click.option(
                "--too-long",
                type=click.Choice(["split", "refuse"]),
                help="Translation: split sources that are too long at sentence or word boundaries (default), or refuse them.",
            ),
            click.option(
                "--model", metavar="PATH_OR_ID", help="Instead of RECIPE: a Hugging Face model, as a folder or an id."
            ),
            click.option(
                "--dtype", type=click.Choice(["float32", "bfloat16", "float16"]), help="Data type of a --model's weights."
            ),
            click.option(
                "--device-map", type=click.Choice(["auto"]), help="Distribute the layers of a --model over all devices."
            ),
            click.option(
                "--experts-backend",
                type=click.Choice(["keep", "eager", "grouped_mm", "batched_mm"]),
                help="How transformers computes the experts of a --model; default: as its configuration says.",
            ),
            click.option(
                "--dense-twin", metavar="PATH_OR_ID", help="Run a dense Hugging Face model on the same text beside a --model."
            ),
            click.option("--trust-remote-code", is_flag=True, help="Run Python code from the folder of a --model."),
            click.option("--chat", is_flag=True, help="Put text through the chat template of a --model."),
            click.option("--keep-tokens", is_flag=True, help="Keep the token ids of a --model's text in the run directory."),
            click.option(
                "--ranks", type=click.IntRange(1, MAX_RANKS), metavar="N", help="Run expert-parallel over N processes."
            ),
            click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Device that runs the model."),
            click.option(
                "--out",
                type=click.Path(path_type=Path),
                metavar="DIR",
                help="Run directory; with several recipes DIR/<recipe>.",
            ),
            click.option("--force", is_flag=True, help="Replace an earlier run in the output folder."),
            full_option,
            click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
        )
    ):
        function = decorator(function)
    return function


def resolved_recipes(
    recipes: Iterable[str],
    overrides: Iterable[str],
    data: Iterable[str],
    *,
    model: str | None = None,
    **settings: int | str | bool | None,
) -> list[Recipe]:
    """The recipes with every option applied; UsageError if options contradict each other."""
    from moeprof.huggingface.recipe import resolved as describing_its_model

    if model is not None and list(recipes):
        raise UsageError(f"--model {model}: a recipe is given too", "Give a recipe or --model.")
    of_model = {name: settings.pop(name) for name in MODEL_SETTINGS if name in settings}
    given = {name: value for name, value in of_model.items() if value}
    if model is not None:
        resolved = [recipe_of_model(model, given, overrides)]
    else:
        resolved = [load_recipe(name, overrides) for name in list(recipes) or list(DEFAULT_RECIPES)]
    if repeated := [recipe.name for recipe in resolved if sum(other.name == recipe.name for other in resolved) > 1]:
        raise UsageError(f"recipe {repeated[0]}: given twice", "Give each recipe once.")
    if data and len({recipe.workload for recipe in resolved}) > 1:
        raise UsageError("--data: the recipes have different workloads", "Give one recipe, such as lm-tiny or mt-tiny.")
    found = [describing_its_model(with_options(recipe, list(data), given, **settings)) for recipe in resolved]
    for recipe in found:
        if isinstance(recipe.model, HuggingFaceSection):
            from moeprof.studies.announcement import announcement

            log.warning("%s", announcement(recipe, recipe.model))
    return found


def recipe_of_model(model: str, given: ModelSettings, overrides: Iterable[str]) -> Recipe:
    """The recipe behind `--model`."""
    from moeprof.huggingface.recipe import document_of
    from moeprof.models.nllb import is_nllb, recipe_of

    document = recipe_of(Path(model)) if is_nllb(Path(model)) else document_of(model, dict(given))
    return overridden(document, overrides, f"of --model {model}")


def with_options(
    recipe: Recipe, data: list[str], of_model: ModelSettings = NONE, **settings: int | str | bool | None
) -> Recipe:
    """The recipe with the options applied, of which those that are None change nothing, validated again."""
    from moeprof.parallel.group import started_as
    from moeprof.workloads.text import parse_data_option

    document = recipe.model_dump(by_alias=True)
    document["gating"] = recipe.gating.model_dump(exclude_unset=True)  # what nobody chose may follow from the model
    files: dict[str, str | list[str]] = {}
    for option in data:
        name, paths = parse_data_option(option, recipe.workload, plain=isinstance(recipe.model, HuggingFaceSection))
        if name in files:
            raise UsageError(f"--data {option}: {name!r} is given twice", "Give each text its own name.")
        if isinstance(recipe.model, HuggingFaceSection):  # its runs show paths as they were typed
            files[name] = paths
        else:
            files[name] = [absolute(path) for path in paths] if isinstance(paths, list) else absolute(paths)
    if files:
        document["data"]["files"] = files
    if of_model:
        if not isinstance(recipe.model, HuggingFaceSection):
            option = next(iter(of_model)).replace("_", "-")
            raise UsageError(f"--{option}: recipe {recipe.name} has a model of moeprof's own", "Use it with --model.")
        document["model"] |= of_model
    if settings.get("ranks") is None and document["parallel"]["ranks"] == 1:
        settings["ranks"] = started_as().size
    for key, value in settings.items():
        if value is not None:
            document[SETTINGS[key]][key] = value
    return validated(document, recipe.name)


def absolute(path: str) -> str:
    """The path from the root, links kept."""
    return str(Path(path).absolute())


def named_systems(presets: str | None, changed: Sequence[str]) -> list[str]:
    """The offloading systems of `--presets` and every `--preset`."""
    return [*filter(None, (presets or "").split(",")), *changed]
