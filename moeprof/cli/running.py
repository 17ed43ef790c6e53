"""How a command runs its study on every recipe, alone or as one of several ranks, and shows what came of it."""

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.output import default_format, show
from moeprof.cli.progress import Bar
from moeprof.parallel.failure import REMEDY, Failure, RankError, end_now, failure_of, tell
from moeprof.parallel.group import ALONE, Group, joined, started_as
from moeprof.parallel.launch import end_with_launcher, folder_for_failures, launch, launched_folders
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import Run
from moeprof.records.run.writer import claim, default_folder, end_in_its_place
from moeprof.reporters.formats.registry import render

if TYPE_CHECKING:
    from moeprof.studies.study import Study


Made = Sequence[tuple[Recipe, "Study"]]
"""What is run of every recipe."""


def run_all(
    study: "Callable[[Recipe], Study]",
    recipes: Sequence[Recipe],
    out: Path | None,
    *,
    force: bool,
    as_json: bool,
    settings: dict[str, Any],
) -> None:
    """One run per recipe, on as many ranks as the recipes ask for."""
    group, made, num_ranks = started_as(), [(recipe, study(recipe)) for recipe in recipes], common_ranks(recipes)
    if group.alone and num_ranks > 1:
        launch_all(made, out, num_ranks, force=force, arguments=settings["arguments"])
        return
    device, timeout_s = recipes[0].measure.device, max(recipe.parallel.timeout_s for recipe in recipes)
    with ended_at_once(group), joined(group, device, timeout_s):
        folders = launched_folders() or [folder_for(recipe, one.command, recipes, out) for recipe, one in made]
        run_here(made, folders, group, force=force, as_json=as_json, quiet=settings["quiet"] or not group.first)


def run_here(made: Made, folders: Sequence[Path], group: Group, *, force: bool, as_json: bool, quiet: bool) -> None:
    """All recipes as this rank runs them; the first rank shows each as soon as it is done, as JSON all of them at the end."""
    runs = []
    for (recipe, study), folder in zip(made, folders, strict=True):
        runs.append(run_one(study, recipe, folder, group, force=force, quiet=quiet))
        if group.first and not as_json:
            show(runs[-1:], default_format())
    if group.first and as_json:
        show(runs, "json")


def run_one(study: "Study", recipe: Recipe, folder: Path, group: Group, *, force: bool, quiet: bool) -> Run:
    """One run of a recipe."""
    argv = ["moeprof", *sys.argv[1:]]
    return reported(
        recipe.name,
        folder,
        lambda bar: study.run(recipe, folder, force=force, argv=argv, progress=bar, group=group),
        group,
        quiet=quiet,
    )


def reported(title: str, folder: Path, make: Callable[[Bar], Run], group: Group = ALONE, *, quiet: bool) -> Run:
    """What `make` leaves in the folder with its reports, which are written also for what an interruption leaves."""
    try:
        with Bar(title, quiet=quiet) as bar:
            run = make(bar)
    except KeyboardInterrupt:
        if group.first and not launched_folders() and (folder / "run.json").is_file():
            tell_of_partial(Run.open(folder))
        raise
    if group.first:
        write_reports(run)
    return run


def launch_all(made: Made, out: Path | None, num_ranks: int, *, force: bool, arguments: Sequence[str]) -> None:
    """The same command on every rank; whatever stops them, the partial run says why."""
    recipes = [recipe for recipe, _ in made]
    for recipe, study in made:
        study.check(recipe, Group(0, num_ranks, num_ranks))
    folders = [reserved(recipe, study.command, recipes, out, force=force) for recipe, study in made]
    why = "interrupted"
    try:
        launch(arguments, num_ranks, folders)
    except MoeprofError as error:
        why = f"failed: {error.what}"
        if isinstance(error, RankError) and not any((folder / "run.json").is_file() for folder in folders):
            click.echo(error.trace, err=True, nl=False)  # there is no run in which a log could lie
        raise
    finally:
        for folder in folders:
            settle(folder, why)


def settle(folder: Path, why: str) -> None:
    """Says in a run that its ranks could not finish why that was; removes the folder of one that was never begun."""
    run = end_in_its_place(folder, why)
    if run is None:
        with suppress(OSError):
            folder.rmdir()
    elif run.record.reasons == [why]:
        tell_of_partial(run)


def tell_of_partial(run: Run) -> None:
    """What an interruption leaves."""
    write_reports(run)
    click.echo(f"moeprof: the partial run is in {run.path}, marked invalid", err=True)


def common_ranks(recipes: Sequence[Recipe]) -> int:
    """Of all recipes; UsageError where they ask for different numbers."""
    first, *others = recipes
    for other in others:
        if other.parallel.ranks != first.parallel.ranks:
            raise UsageError(
                f"recipe {first.name}: {first.parallel.ranks} ranks, recipe {other.name}: {other.parallel.ranks}",
                "Use --ranks for all of them, or run them one by one.",
            )
    return first.parallel.ranks


def folder_for(recipe: Recipe, command: str, recipes: Sequence[Recipe], out: Path | None) -> Path:
    """Where the run of a recipe goes."""
    if out is None:
        return default_folder(recipe.name, command)
    return out / recipe.name if len(recipes) > 1 else out


def reserved(recipe: Recipe, command: str, recipes: Sequence[Recipe], out: Path | None, *, force: bool) -> Path:
    """The same folder, made now, so that no other launcher takes it meanwhile."""
    while True:
        folder = folder_for(recipe, command, recipes, out)
        if out is not None:
            claim(folder, force=force)
            return folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            continue  # another one was faster: the next name
        return folder


@contextmanager
def ended_at_once(group: Group) -> Iterator[None]:
    """Ends a rank that fails without asking the others, who would not answer; alone, an error goes its usual way."""
    if group.alone:
        yield
        return
    end_with_launcher()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the launcher's way to end a rank: the run is kept
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
    """To the launcher where there is one of ours; to the user otherwise, with the place of a defect."""
    if launched_folders():
        tell(failure, folder_for_failures())
        return
    if failure.remedy == REMEDY:
        click.echo(failure.trace, err=True, nl=False)
    click.echo(f"Error: {failure.what}\n{failure.remedy}", err=True)


def write_reports(run: Run) -> None:
    """`report.md` and `report.html` beside the numbers."""
    for name, form in (("report.md", "markdown"), ("report.html", "html")):
        (run.path / name).write_text(render(run, form), encoding="utf-8")
