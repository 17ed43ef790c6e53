"""`moeprof recipes`: lists and prints recipes, and validates recipe files."""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import click

from moeprof.records.recipe.files import builtin_names, find_recipe, load_recipe
from moeprof.records.recipe.model import AnyModel, ModelSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.units import format_count


@click.group(name="recipes")
def command() -> None:
    """List, show and validate recipes: the built-in ones and your own TOML files."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def list_recipes(as_json: bool) -> None:
    """List the built-in recipes."""
    recipes = [load_recipe(name) for name in builtin_names()]
    if as_json:
        click.echo(json.dumps([listed(recipe) for recipe in recipes], indent=1))
        return
    from moeprof.cli.output import show_document
    from moeprof.reporters.documents.document import Table

    rows = [[recipe.name, recipe.description, format_count(listed(recipe)["num_parameters"])] for recipe in recipes]
    show_document([Table(["recipe", "description", "parameters"], rows, labels=2)])


@command.command(name="show")
@click.argument("recipe")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the resolved recipe as JSON, with num_parameters.")
def show(recipe: str, overrides: tuple[str, ...], as_json: bool) -> None:
    """Print RECIPE with every default filled in."""
    loaded = load_recipe(recipe, overrides)
    document = loaded.model_dump(mode="json", by_alias=True)
    if as_json:
        click.echo(json.dumps(document | {"num_parameters": counted(loaded.model)}, indent=1))
        return
    click.echo("\n".join(toml_lines(document)))


@command.command(name="validate")
@click.argument("recipes", nargs=-1, required=True, metavar="RECIPE...")
def validate(recipes: tuple[str, ...]) -> None:
    """Check each RECIPE and report the first error."""
    for reference in recipes:
        load_recipe(reference)
        click.echo(f"{find_recipe(reference)}: valid")


@command.command(name="schema")
def schema() -> None:
    """Print the JSON Schema of recipes for editors."""
    click.echo(json.dumps(Recipe.model_json_schema(by_alias=True), indent=1))


def listed(recipe: Recipe) -> dict[str, Any]:
    """The summary of a recipe that `list` prints."""
    return {
        "name": recipe.name,
        "workload": recipe.workload,
        "num_parameters": counted(recipe.model),
        "description": recipe.description,
    }


def counted(model: AnyModel) -> int:
    """Number of all parameters; those of a Hugging Face model are counted in the headers of its files."""
    from safetensors import safe_open

    from moeprof.analysis.model_size import num_parameters

    if isinstance(model, ModelSection):
        return num_parameters(model)
    total = 0
    for path in Path(model.huggingface).glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            total += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return total


def toml_lines(document: dict[str, Any]) -> Iterator[str]:
    """The document as TOML without absent keys: the top level, then one section after another."""
    yield from (f"{key} = {json.dumps(value)}" for key, value in document.items() if not isinstance(value, dict))
    for name, section in document.items():
        if isinstance(section, dict):
            yield f"\n[{name}]"
            yield from toml_section(section)


def toml_section(section: dict[str, Any]) -> Iterator[str]:
    """The keys of one section; nested tables are written inline, and strings, numbers and lists as in JSON."""
    for key, value in section.items():
        if isinstance(value, dict):
            yield f"{key} = {{{', '.join(f'{json.dumps(name)} = {json.dumps(item)}' for name, item in value.items())}}}"
        elif value is not None:
            yield f"{key} = {json.dumps(value)}"
