"""`moeprof placement`: shows a placement file, compares two, and checks whether a recipe can run with one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.output import show_document
from moeprof.cli.trace_options import parsed
from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_RANKS
from moeprof.records.placement_formats.placement_format import PlacementFacts
from moeprof.records.placement_formats.registry import read_placement

if TYPE_CHECKING:
    from moeprof.reporters.documents.document import Document

FILE = click.Path(path_type=Path)
RANKS = click.option("--ranks", type=click.IntRange(1, MAX_RANKS), metavar="N", help="Number of ranks, if a file does not say.")
LAYERS = click.option("--layers", metavar="N-M,...", help="Numbers of the layers that have experts, such as 1-47.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")


@click.group(name="placement")
def command() -> None:
    """Show, compare and check placement files, which say which rank holds which experts of each layer.

    They are JSON files of moeprof, maps of SGLang (--init-expert-location), vllm-ascend or vLLM, or the tensors of EPLB.
    """


@command.command(name="show")
@click.argument("file", type=FILE)
@RANKS
@LAYERS
@AS_JSON
def show(file: Path, ranks: int | None, layers: str | None, as_json: bool) -> None:
    """Show which experts each rank holds."""
    from moeprof.reporters.documents.placement import content

    placement = read_placement(file, facts(ranks, layers))
    document = {"model_hash": placement.model_hash, "num_experts": placement.num_experts, "layers": placement.layers}
    print_result(document, content(placement), as_json=as_json)


@command.command(name="diff")
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
@RANKS
@LAYERS
@AS_JSON
def diff(before: Path, after: Path, ranks: int | None, layers: str | None, as_json: bool) -> None:
    """List the experts whose ranks differ between BEFORE and AFTER."""
    from moeprof.reporters.documents.placement import differences

    one, other = (read_placement(file, facts(ranks, layers)) for file in (before, after))
    if one.num_experts != other.num_experts:
        raise UsageError(
            f"placement {after}: {other.num_experts} experts; {before} has {one.num_experts}",
            "Give two placements of one model.",
        )
    moves = [move._asdict() for move in one.moves(other)]
    print_result({"moves": moves}, differences(one, other), as_json=as_json)


@command.command(name="check")
@click.argument("file", type=FILE)
@click.option("--recipe", required=True, metavar="RECIPE", help="Built-in recipe, or the path of a .toml file.")
@click.option("--ranks", type=click.IntRange(min=1), metavar="N", help="Number of ranks.  [default: as many as FILE has]")
@LAYERS
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable.")
@AS_JSON
def check(file: Path, recipe: str, ranks: int | None, layers: str | None, overrides: tuple[str, ...], as_json: bool) -> None:
    """Check that the recipe of --recipe can run with FILE.

    The weights, layers, experts and number of ranks must match.
    """
    from moeprof.records.recipe.files import load_recipe

    placement = read_placement(file, facts(ranks, layers))
    number = ranks or placement.num_ranks
    loaded = load_recipe(recipe, [*overrides, f"parallel.ranks={number}"])
    placement.fits(file, loaded)
    if as_json:
        click.echo(json.dumps({"fits": True, "recipe": loaded.name, "ranks": number}, indent=1))
        return
    unchecked = "" if placement.model_hash else "; the file has no weights hash, so the weights were not checked"
    click.echo(f"{file}: fits recipe {loaded.name} on {number} ranks{unchecked}")


def facts(ranks: int | None, layers: str | None) -> PlacementFacts:
    """What the options state about files that lack it."""
    return PlacementFacts(ranks, parsed(layers) if layers else None)


def print_result(document: dict[str, Any], blocks: "Document", *, as_json: bool) -> None:
    """Prints the result as JSON or as a report."""
    if as_json:
        click.echo(json.dumps(document, indent=1))
    else:
        show_document(blocks)
