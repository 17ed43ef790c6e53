"""`moeprof train`: the small checkpoints that come with the package, made again."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.options import with_options
from moeprof.cli.progress import Bar
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe

if TYPE_CHECKING:
    from moeprof.records.run.model_card import ModelCard

SUFFIX = ".safetensors"


class TrainingBar(Bar):
    """A bar that also shows the loss and the held-out quality."""

    def told(self, text: str) -> None:
        """Shown beside the title until the next one."""
        if self.task is not None:
            self.progress.update(self.task, description=f"{self.title}  {text}")
            self.progress.refresh()


@click.command(name="train", short_help="Train a recipe's checkpoint.")
@click.argument("recipe")
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="FILE", help="The checkpoint, FILE.safetensors.")
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key.")
@click.option("--data", multiple=True, metavar="NAME=PATH", help="Your own text; MT: NAME=SOURCE,TARGET. Repeat for several.")
@click.option("--twin", is_flag=True, help="Train the dense twin of hidden width k x F instead, for comparison in the card.")
@click.option("--card-only", is_flag=True, help="Measure the checkpoint FILE again and write its card, without training.")
@click.option("--force", is_flag=True, help="Replace FILE, and begin anew where a training was interrupted.")
@click.option("--json", "as_json", is_flag=True, help="The card as one JSON document.")
@click.pass_obj
def command(
    settings: dict[str, bool],
    /,
    recipe: str,
    out: Path,
    overrides: tuple[str, ...],
    data: tuple[str, ...],
    twin: bool,
    card_only: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train RECIPE's model as its section [train] says, and write the checkpoint FILE with a model card beside it.

    Interrupted, the same command goes on where it was, to the same weights. The card compares with the dense twin where
    `<FILE>-twin.safetensors`, made with --twin, lies beside FILE.
    """
    resolved = with_options(load_recipe(recipe, overrides), list(data), None, 1, None)
    check_output(out, twin=twin, card_only=card_only, force=force)
    seconds = None if card_only else train_one(resolved, out, twin=twin, quiet=settings["quiet"])
    if not twin:
        show(write_card(resolved, out, seconds), resolved.name, as_json=as_json)
    if not card_only:
        from moeprof.studies.train.state import state_path

        state_path(out).unlink(missing_ok=True)


def check_output(out: Path, *, twin: bool, card_only: bool, force: bool) -> None:
    """UsageError where FILE cannot be written, or is there already; --force clears the way."""
    from moeprof.studies.train.state import state_path

    if twin and card_only:
        raise UsageError("--twin --card-only: a twin has no card of its own", "Write the card of the checkpoint beside it.")
    if out.suffix != SUFFIX:
        raise UsageError(f"--out {out}: not named {SUFFIX}", f"Example: --out {out.with_suffix(SUFFIX)}")
    if not out.parent.is_dir():
        raise UsageError(f"--out {out}: there is no folder {out.parent}", "Make it, or give another --out.")
    if card_only:
        return
    if force:
        state_path(out).unlink(missing_ok=True)
        return
    written = [out] if twin else [out, out.with_suffix(".md")]
    if not state_path(out).exists() and (there := [path for path in written if path.exists()]):
        raise UsageError(f"--out {there[0]}: it exists already", "Give another --out, or --force to replace it.")


def train_one(recipe: Recipe, out: Path, *, twin: bool, quiet: bool) -> float:
    """CPU seconds of the training, which may have begun earlier."""
    from moeprof.studies.train.state import state_path
    from moeprof.studies.train.study import train

    try:
        with TrainingBar(recipe.name, quiet=quiet) as bar:
            return train(recipe, out, bar, twin=twin).cpu_seconds
    except KeyboardInterrupt:
        if state_path(out).exists():
            click.echo(f"moeprof: the state is in {state_path(out)}; the same command goes on from there", err=True)
        raise


def write_card(recipe: Recipe, out: Path, cpu_seconds: float | None) -> "ModelCard":
    """Measures the checkpoint and writes `<FILE>.md`."""
    from moeprof.reporters.documents.model_card import render
    from moeprof.studies.train.appraisal import appraise
    from moeprof.studies.train.checkpoint import writing

    card = appraise(recipe, out, cpu_seconds=cpu_seconds)
    with writing(out.with_suffix(".md")) as partial:
        partial.write_text(render(card, recipe.name), encoding="utf-8")
    return card


def show(card: "ModelCard", name: str, *, as_json: bool) -> None:
    """The card on stdout."""
    from moeprof.reporters.documents.model_card import render

    click.echo(json.dumps(asdict(card), indent=1) if as_json else render(card, name), nl=as_json)
