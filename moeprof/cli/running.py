"""How a command runs its study on every recipe, and shows what came of it."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moeprof.cli.output import default_format, show
from moeprof.cli.progress import Bar
from moeprof.records.recipe import Recipe
from moeprof.records.run import Run, default_folder
from moeprof.reporters.registry import render

if TYPE_CHECKING:
    from moeprof.studies.study import Study


def run_all(
    study: "Callable[[], Study]", recipes: Sequence[Recipe], out: Path | None, *, force: bool, as_json: bool, quiet: bool
) -> None:
    """One run per recipe, each shown as soon as it is done; as JSON all of them together at the end."""
    made, runs = study(), []
    for recipe in recipes:
        folder = default_folder(recipe.name, made.command) if out is None else out / recipe.name if len(recipes) > 1 else out
        runs.append(run_one(made, recipe, folder, force=force, quiet=quiet))
        if not as_json:
            show(runs[-1:], default_format())
    if as_json:
        show(runs, "json")


def run_one(study: "Study", recipe: Recipe, folder: Path, *, force: bool, quiet: bool) -> Run:
    """One run of a recipe."""
    argv = ["moeprof", *sys.argv[1:]]
    return reported(
        recipe.name, folder, lambda bar: study.run(recipe, folder, force=force, argv=argv, progress=bar), quiet=quiet
    )


def reported(title: str, folder: Path, make: Callable[[Bar], Run], *, quiet: bool) -> Run:
    """What `make` leaves in the folder with its reports, which are written also for what an interruption leaves."""
    try:
        with Bar(title, quiet=quiet) as bar:
            run = make(bar)
    except KeyboardInterrupt:
        if (folder / "run.json").is_file():
            write_reports(Run.open(folder))
            click.echo(f"moeprof: the partial run is in {folder}, marked invalid", err=True)
        raise
    write_reports(run)
    return run


def write_reports(run: Run) -> None:
    """`report.md` and `report.html` beside the numbers."""
    for name, form in (("report.md", "markdown"), ("report.html", "html")):
        (run.path / name).write_text(render(run, form), encoding="utf-8")
