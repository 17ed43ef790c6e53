"""`moeprof train`: trains the small checkpoints that ship with the package."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.new_file import WEIGHTS, check_place, exists_already
from moeprof.cli.options import with_options
from moeprof.cli.progress import Bar
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.model import ModelSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.model_card import CARD
from moeprof.records.system.files import write_text
from moeprof.records.system.signals import why

if TYPE_CHECKING:
    from moeprof.records.run.model_card import ModelCard


class TrainingBar(Bar):
    """A progress bar that also shows the loss and the held-out quality."""

    def show_quality(self, text: str) -> None:
        """Shows `text` beside the title until the next call."""
        if self.task is not None:
            self.progress.update(self.task, description=f"{self.title}  {text}")
            self.progress.refresh()


@click.command(name="train")
@click.argument("recipe")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Checkpoint to write: FILE.safetensors, or a folder for a Hugging Face model.",
)
@click.option("--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option(
    "--data", multiple=True, metavar="NAME=PATH", help="Use your own text (translation: NAME=SOURCE,TARGET); repeatable."
)
@click.option(
    "--documentation",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The source distribution that train.documentation names, so that nothing is downloaded.",
)
@click.option(
    "--twin", is_flag=True, help="Train the dense twin of hidden width k x F instead, for the comparison in the model card."
)
@click.option("--card-only", is_flag=True, help="Do not train: measure the checkpoint FILE again and write its model card.")
@click.option("--force", is_flag=True, help="Replace FILE, and restart an interrupted training from the beginning.")
@click.option("--json", "as_json", is_flag=True, help="Print the model card as one JSON document.")
@click.pass_obj
def command(
    settings: dict[str, bool],
    /,
    recipe: str,
    out: Path,
    overrides: tuple[str, ...],
    data: tuple[str, ...],
    documentation: Path | None,
    twin: bool,
    card_only: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Train the model of RECIPE as its [train] section says, and write the checkpoint FILE with a model card.

    The card is beside FILE.safetensors, or in the folder FILE.

    After an interruption the same command continues and ends with the same weights. If FILE-twin.safetensors (made with
    --twin) exists beside FILE, the card compares the checkpoint with it. If train.documentation names a release, pip
    downloads it from the package index once; it is kept in the cache folder.
    """
    resolved = with_options(load_recipe(recipe, overrides), list(data), ranks=1)
    if documentation:
        store_documentation(resolved, documentation)
    check_output(resolved, out, twin=twin, card_only=card_only, force=force)
    if card_only:
        show(write_card(resolved, out, None), resolved.name, as_json=as_json)
        return
    with state_announced(out) as state:
        seconds = train_one(resolved, out, twin=twin, quiet=settings["quiet"])
        if not twin:
            show(write_card(resolved, out, seconds), resolved.name, as_json=as_json)
        state.unlink(missing_ok=True)


@contextmanager
def state_announced(out: Path) -> Iterator[Path]:
    """The file of the training's state; a signal that ends the block reports where it is."""
    from moeprof.studies.train.state import state_path

    try:
        yield state_path(out)
    except KeyboardInterrupt as error:
        if state_path(out).exists():
            where = f"the state is in {state_path(out)}, and the same command continues from it"
            click.echo(f"moeprof: {why(error)}; {where}", err=True)
        raise


def store_documentation(recipe: Recipe, path: Path) -> None:
    """Puts the file into the cache; UsageError if it is not the release that the recipe names."""
    from moeprof.workloads.documentation import known_distribution, store

    if recipe.train.documentation is None:
        raise UsageError(
            f"--documentation {path}: recipe {recipe.name} names no release",
            "Leave the option out, or name one with --set train.documentation=NAME==VERSION.",
        )
    store(known_distribution(recipe.train.documentation), path)


def check_output(recipe: Recipe, out: Path, *, twin: bool, card_only: bool, force: bool) -> None:
    """UsageError if FILE cannot be written or already exists; --force removes the state of an interrupted training."""
    from moeprof.studies.train.state import state_path

    if twin and card_only:
        raise UsageError("--twin --card-only: a twin has no model card", "Remove --twin to write the card of the checkpoint.")
    check_place(out, WEIGHTS if in_file(recipe) else "")
    if card_only:
        return
    if force:
        check_replaceable(recipe, out)
        state_path(out).unlink(missing_ok=True)
        return
    written = [out] if twin or not in_file(recipe) else [out, card_path(recipe, out)]
    if not state_path(out).exists() and (there := [path for path in written if path.exists()]):
        raise exists_already(there[0])


def check_replaceable(recipe: Recipe, out: Path) -> None:
    """UsageError if a folder would take the place of something that `moeprof train` has not written."""
    from moeprof.studies.train.checkpoint import ORIGIN

    if not in_file(recipe) and out.exists() and not (out / ORIGIN).is_file():
        raise UsageError(f"--out {out}: not a checkpoint of moeprof train", "Give another --out; --force replaces only these.")


def in_file(recipe: Recipe) -> bool:
    """Whether the checkpoint is a file; that of a Hugging Face model is a folder."""
    return isinstance(recipe.model, ModelSection)


def card_path(recipe: Recipe, out: Path) -> Path:
    """The path of the model card: beside the file, or in the folder."""
    return out.with_suffix(".md") if in_file(recipe) else out / CARD


def train_one(recipe: Recipe, out: Path, *, twin: bool, quiet: bool) -> float:
    """Trains and returns the CPU seconds, including those before an interruption."""
    from moeprof.studies.train.study import train

    with TrainingBar(recipe.name, quiet=quiet) as bar:
        return train(recipe, out, bar, twin=twin).cpu_seconds


def write_card(recipe: Recipe, out: Path, cpu_seconds: float | None) -> "ModelCard":
    """Measures the checkpoint and writes its model card."""
    from moeprof.reporters.documents.model_card import render
    from moeprof.studies.train.appraisal import appraise

    card = appraise(recipe, out, cpu_seconds=cpu_seconds)
    write_text(card_path(recipe, out), render(card, recipe.name))
    return card


def show(card: "ModelCard", name: str, *, as_json: bool) -> None:
    """Prints the model card as markdown or JSON."""
    from moeprof.reporters.documents.model_card import render

    click.echo(json.dumps(asdict(card), indent=1) if as_json else render(card, name), nl=as_json)
