"""`moeprof placement`: what a placement file says, how two of them differ, and whether a recipe can run with one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.output import show_document
from moeprof.records.placement import Placement

if TYPE_CHECKING:
    from moeprof.reporters.documents.document import Document

FILE = click.Path(path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group(name="placement", short_help="Show, compare and check placements of experts.")
def command() -> None:
    """Placement files: which rank holds which experts of which layer; plain JSON, to be read and edited."""


@command.command(name="show")
@click.argument("file", type=FILE)
@AS_JSON
def show(file: Path, as_json: bool) -> None:
    """Show which experts FILE puts on every rank."""
    from moeprof.reporters.documents.placement import shown

    placement = Placement.read(file)
    document = {"model_hash": placement.model_hash, "num_experts": placement.num_experts, "layers": placement.layers}
    tell(document, shown(placement), as_json=as_json)


@command.command(name="diff")
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@AS_JSON
def diff(before: Path, after: Path, as_json: bool) -> None:
    """Tell which experts BEFORE and AFTER have on different ranks."""
    from moeprof.reporters.documents.placement import told_apart

    one, other = Placement.read(before), Placement.read(after)
    moves = [move._asdict() for move in one.moves(other)]
    tell({"moves": moves}, told_apart(one, other), as_json=as_json)


@command.command(name="check")
@click.argument("file", type=FILE)
@click.option("--recipe", required=True, metavar="RECIPE", help="A built-in recipe, or a path to one.")
@click.option("--ranks", type=click.IntRange(min=1), metavar="N", help="How many there will be; default: as many as FILE has.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key.")
@AS_JSON
def check(file: Path, recipe: str, ranks: int | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check that RECIPE can run with FILE: same weights, every layer, so many ranks."""
    from moeprof.records.recipe.files import load_recipe

    placement = Placement.read(file)
    number = ranks or placement.num_ranks
    loaded = load_recipe(recipe, [*overrides, f"parallel.ranks={number}"])
    placement.fits(file, loaded)
    doubt = "" if placement.model_hash else "; whose weights it was made for, it does not say"
    told = json.dumps({"fits": True, "recipe": loaded.name, "ranks": number}, indent=1)
    click.echo(told if as_json else f"{file}: recipe {loaded.name} can run with it on {number} ranks{doubt}")


def tell(document: dict[str, Any], blocks: "Document", *, as_json: bool) -> None:
    """As JSON or as text."""
    if as_json:
        click.echo(json.dumps(document, indent=1))
    else:
        show_document(blocks)
