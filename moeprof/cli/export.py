"""`moeprof export`: writes a translation model as a folder in the layout of NLLB-MoE."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.units import format_bytes, parse_bytes

SHARD_SIZE = "5GB"


@click.command(name="export")
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Folder to write.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option(
    "--shard-size", default=SHARD_SIZE, show_default=True, metavar="SIZE", help="Most bytes of tensors in one file of weights."
)
@click.option("--force", is_flag=True, help="Replace an earlier export in DIR.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON document.")
def command(recipe: str, out: Path, overrides: tuple[str, ...], shard_size: str, *, force: bool, as_json: bool) -> None:
    """Write the trained model of RECIPE as a folder in the layout of NLLB-MoE (config.json, safetensors, tokenizer).

    The weights keep every bit, so that the folder gives the same logits. transformers routes this architecture wrongly; moeprof does not.
    """
    resolved, shard_bytes = load_recipe(recipe, overrides), parsed(shard_size)
    from moeprof.studies.export import export

    found = export(resolved, out, shard_bytes=shard_bytes, force=force)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=1))
        return
    click.echo(f"{out}: {found.tensors} tensors, {format_bytes(found.weight_bytes)}, in the layout of NLLB-MoE")
    click.echo(f"{', '.join(found.files)}")
    if found.tokenizer:
        click.echo(f"No tokenizer.json: {found.tokenizer}")


def parsed(shard_size: str) -> int:
    """The size in bytes; UsageError if it is none."""
    try:
        return parse_bytes(shard_size)
    except ValueError as error:
        raise UsageError(f"--shard-size {shard_size}: {error}", f"Example: --shard-size {SHARD_SIZE}") from error
