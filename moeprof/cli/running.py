"""Runs a study on every recipe, on one rank or several, and shows the results."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.output import default_format, show, write_reports
from moeprof.cli.progress import Bar
from moeprof.parallel.failure import REMEDY, Failure, RankError, end_now, failure_of, write_failure
from moeprof.parallel.group import ALONE, Group, joined, started_as
from moeprof.parallel.launch import end_with_launcher, folder_for_failures, launch, launched_folders
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import Run
from moeprof.records.run.writer import claim, default_folder, end_in_its_place

if TYPE_CHECKING:
    from moeprof.studies.study import Study


Planned = Sequence[tuple[Recipe, "Study"]]
"""The study to run on every recipe."""


def run_all(
    study: "Callable[[Recipe], Study]",
    recipes: Sequence[Recipe],
    out: Path | None,
    *,
    force: bool,
    as_json: bool,
    settings: dict[str, Any],
) -> None:
    """Makes one run per recipe, on the number of ranks that the recipes ask for."""
    group, planned, num_ranks = started_as(), [(recipe, study(recipe)) for recipe in recipes], common_ranks(recipes)
    if group.alone and num_ranks > 1:
        launch_all(planned, out, num_ranks, force=force, arguments=settings["arguments"])
        return
    device, timeout_s = recipes[0].measure.device, max(recipe.parallel.timeout_s for recipe in recipes)
    with ended_at_once(group), joined(group, device, timeout_s):
        folders = launched_folders() or [folder_for(recipe, one.command, recipes, out) for recipe, one in planned]
        run_here(planned, folders, group, force=force, as_json=as_json, quiet=settings["quiet"] or not group.first)


def run_here(planned: Planned, folders: Sequence[Path], group: Group, *, force: bool, as_json: bool, quiet: bool) -> None:
    """Runs all recipes on this rank; the first rank shows each run when it is done, or as JSON all of them at the end."""
    runs = []
    for (recipe, study), folder in zip(planned, folders, strict=True):
        runs.append(run_one(study, recipe, folder, group, force=force, quiet=quiet))
        if group.first and not as_json:
            show(runs[-1:], default_format())
    if group.first and as_json:
        show(runs, "json")


def run_one(study: "Study", recipe: Recipe, folder: Path, group: Group, *, force: bool, quiet: bool) -> Run:
    """Runs the study on one recipe."""
    argv = ["moeprof", *sys.argv[1:]]
    return reported(
        recipe.name,
        folder,
        lambda bar: study.run(recipe, folder, force=force, argv=argv, progress=bar, group=group),
        group,
        quiet=quiet,
    )


def reported(title: str, folder: Path, produce: Callable[[Bar], Run], group: Group = ALONE, *, quiet: bool) -> Run:
    """The run that `produce` writes to the folder, with its reports; a partial run gets them too."""
    try:
        with Bar(title, quiet=quiet) as bar:
            run = produce(bar)
    except KeyboardInterrupt:
        if group.first and not launched_folders() and (folder / "run.json").is_file():
            report_partial(Run.open(folder))
        raise
    if group.first:
        write_reports(run)
    return run


def launch_all(planned: Planned, out: Path | None, num_ranks: int, *, force: bool, arguments: Sequence[str]) -> None:
    """Runs the same command on every rank; if that fails, the partial run records the reason."""
    recipes = [recipe for recipe, _ in planned]
    for recipe, study in planned:
        study.check(recipe, Group(0, num_ranks, num_ranks))
    folders = [reserved(recipe, study.command, recipes, out, force=force) for recipe, study in planned]
    why = "interrupted"
    try:
        launch(arguments, num_ranks, folders)
    except MoeprofError as error:
        why = f"failed: {error.what}"
        if isinstance(error, RankError) and not any((folder / "run.json").is_file() for folder in folders):
            click.echo(error.trace, err=True, nl=False)  # there is no run directory for a log
        raise
    finally:
        for folder in folders:
            settle(folder, why)


def settle(folder: Path, why: str) -> None:
    """Records in an unfinished run why its ranks stopped; removes the folder if no run was begun."""
    run = end_in_its_place(folder, why)
    if run is None:
        with suppress(OSError):
            folder.rmdir()
    elif run.record.reasons == [why]:
        report_partial(run)


def report_partial(run: Run) -> None:
    """Writes the reports of a partial run and says where it is."""
    write_reports(run)
    click.echo(f"moeprof: the partial run is kept in {run.path} and marked invalid", err=True)


def common_ranks(recipes: Sequence[Recipe]) -> int:
    """The number of ranks of all recipes; UsageError if they differ."""
    first, *others = recipes
    for other in others:
        if other.parallel.ranks != first.parallel.ranks:
            raise UsageError(
                f"recipe {first.name} has {first.parallel.ranks} ranks, recipe {other.name} has {other.parallel.ranks}",
                "Set the same number with --ranks, or run the recipes one by one.",
            )
    return first.parallel.ranks


def folder_for(recipe: Recipe, command: str, recipes: Sequence[Recipe], out: Path | None) -> Path:
    """The run directory of a recipe."""
    if out is None:
        return default_folder(recipe.name, command)
    return out / recipe.name if len(recipes) > 1 else out


def reserved(recipe: Recipe, command: str, recipes: Sequence[Recipe], out: Path | None, *, force: bool) -> Path:
    """The run directory of a recipe, created now so that no other launcher takes it."""
    while True:
        folder = folder_for(recipe, command, recipes, out)
        if out is not None:
            claim(folder, force=force)
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another launcher took it: try the next name
        return folder


@contextmanager
def ended_at_once(group: Group) -> Iterator[None]:
    """Ends a failing rank at once, because other ranks would not answer its collectives; a single rank raises as usual."""
    if group.alone:
        yield
        return
    end_with_launcher()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # how the launcher ends a rank: the run is kept
    try:
        yield
    except BaseException as error:
        failure = failure_of(error)
        if not isinstance(error, KeyboardInterrupt):
            report(failure)
        sys.stdout.flush()
        sys.stderr.flush()
        end_now(failure.exit_code)


def report(failure: Failure) -> None:
    """Reports a failure to our launcher, or to the user if there is none; a bug comes with its traceback."""
    if launched_folders():
        write_failure(failure, folder_for_failures())
        return
    if failure.remedy == REMEDY:
        click.echo(failure.trace, err=True, nl=False)
    click.echo(f"Error: {failure.what}\n{failure.remedy}", err=True)
