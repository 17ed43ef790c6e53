"""`moeprof characterize`: the workloads unchanged, and where routing, time and memory go."""

import sys
from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import resolved_recipes, run_options
from moeprof.cli.output import default_format, show
from moeprof.cli.progress import Bar
from moeprof.records.recipe import Recipe
from moeprof.records.run import Run, default_folder
from moeprof.reporters.registry import render


@click.command(name="characterize", short_help="Run workloads as deployed.")
@run_options
@click.option("--timeline", is_flag=True, help="Also record a torch.profiler timeline of a few steps.")
@click.pass_obj
def command(
    settings: dict[str, bool],
    /,
    recipes: tuple[str, ...],
    out: Path | None,
    force: bool,
    as_json: bool,
    timeline: bool,
    **options: Any,
) -> None:
    """Run the workloads of RECIPE unchanged, with static gating, and record routing and time beside the dense twin.

    RECIPE is a built-in name (`moeprof recipes list`) or the path of a TOML file; without one, lm-tiny and mt-tiny run.
    """
    resolved = resolved_recipes(recipes, **options)
    runs = []
    for recipe in resolved:
        folder = default_folder(recipe.name, "characterize") if out is None else out / recipe.name if len(resolved) > 1 else out
        runs.append(run_one(recipe, folder, force=force, quiet=settings["quiet"], timeline=timeline))
        if not as_json:
            show(runs[-1:], default_format())
    if as_json:
        show(runs, "json")


def run_one(recipe: Recipe, folder: Path, *, force: bool, quiet: bool, timeline: bool) -> Run:
    """One run with its reports, which are written also for what an interruption leaves."""
    from moeprof.studies.characterize import characterize

    try:
        with Bar(recipe.name, quiet=quiet) as bar:
            argv = ["moeprof", *sys.argv[1:]]
            run = characterize(recipe, folder, force=force, argv=argv, progress=bar, timeline=timeline)
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
