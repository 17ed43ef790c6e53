"""The options that all commands that run recipes share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_COUNT, MAX_RANKS
from moeprof.records.recipe.files import load_recipe, validated
from moeprof.records.recipe.recipe import Recipe

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_RECIPES = ("lm-tiny", "mt-tiny")

SETTINGS = {"max_tokens": "data", "too_long": "data", "ranks": "parallel", "device": "measure"}
"""Options that set a recipe's key of the same name, and its section."""


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
            click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document."),
        )
    ):
        function = decorator(function)
    return function


def resolved_recipes(
    recipes: Iterable[str], overrides: Iterable[str], data: Iterable[str], **settings: int | str | None
) -> list[Recipe]:
    """The recipes with every option applied; UsageError if options contradict each other."""
    names = list(recipes) or list(DEFAULT_RECIPES)
    resolved = [load_recipe(name, overrides) for name in names]
    if repeated := [recipe.name for recipe in resolved if sum(other.name == recipe.name for other in resolved) > 1]:
        raise UsageError(f"recipe {repeated[0]}: given twice", "Give each recipe once.")
    if data and len({recipe.workload for recipe in resolved}) > 1:
        raise UsageError("--data: the recipes have different workloads", "Give one recipe, such as lm-tiny or mt-tiny.")
    return [with_options(recipe, list(data), **settings) for recipe in resolved]


def with_options(recipe: Recipe, data: list[str], **settings: int | str | None) -> Recipe:
    """The recipe with the options applied, of which those that are None change nothing, validated again."""
    from moeprof.parallel.group import started_as
    from moeprof.workloads.text import parse_data_option

    document = recipe.model_dump(by_alias=True)
    files: dict[str, str | list[str]] = {}
    for option in data:
        name, paths = parse_data_option(option, recipe.workload)
        if name in files:
            raise UsageError(f"--data {option}: {name!r} is given twice", "Give each text its own name.")
        files[name] = [str(Path(path).absolute()) for path in paths] if isinstance(paths, list) else str(Path(paths).absolute())
    if files:
        document["data"]["files"] = files
    if settings.get("ranks") is None and document["parallel"]["ranks"] == 1:
        settings["ranks"] = started_as().size
    for key, value in settings.items():
        if value is not None:
            document[SETTINGS[key]][key] = value
    return validated(document, recipe.name)
