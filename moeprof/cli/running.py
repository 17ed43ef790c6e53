"""Runs a study on every recipe, on one rank or several, and shows the results."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moeprof.cli.output import show_complete, write_reports
from moeprof.cli.progress import Bar
from moeprof.parallel.failure import REMEDY, Failure, RankError, end_now, failure_of, write_failure
from moeprof.parallel.group import ALONE, Group, joined, started_as
from moeprof.parallel.launch import end_with_launcher, folder_for_failures, launch, launched_folders
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.folder import emptied, output_folder
from moeprof.records.run.run import UNFINISHED, Run
from moeprof.records.run.writer import end_in_its_place, failed
from moeprof.records.system.signals import INTERRUPTED, raise_if_asked, settled, too_late, why

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
    form: str,
    settings: dict[str, Any],
) -> None:
    """Makes one run per recipe, on the number of ranks that the recipes ask for, and shows them in a format."""
    group, num_ranks = started_as(), common_ranks(recipes)
    with ended_at_once(group):
        planned = [(recipe, study(recipe)) for recipe in recipes]
        if group.alone and num_ranks > 1:
            launch_all(planned, out, num_ranks, force=force, arguments=settings["arguments"])
            return
        for recipe, its_study in planned:
            its_study.check_devices(recipe, group)
        with joined(group, recipes[0].measure.device, max(recipe.parallel.timeout_s for recipe in recipes)):
            run_here(planned, out, group, force=force, form=form, quiet=settings["quiet"] or not group.first)


def run_here(planned: Planned, out: Path | None, group: Group, *, force: bool, form: str, quiet: bool) -> None:
    """Runs all recipes on this rank; the first rank shows each run when it is done, or as JSON all of them at the end."""
    runs: list[Run] = []
    for (recipe, study), new in zip(planned, output_folders(planned, out), strict=True):
        raise_if_asked()
        with made_by_first(new, group) as folder:
            number = f"{len(runs) + 1} of {len(planned)}" if len(planned) > 1 else ""
            last = len(runs) == len(planned) - 1
            runs.append(run_one(study, recipe, folder, group, number, force=force, quiet=quiet, last=last))
        if group.first and form != "json":
            show_complete(runs[-1:], form)
    if group.first and form == "json":
        show_complete(runs, form)


def run_one(
    study: "Study", recipe: Recipe, folder: Path, group: Group, number: str, *, force: bool, quiet: bool, last: bool
) -> Run:
    """Runs the study on one recipe, `1 of 2` if there are several; `last`: no other follows."""
    argv = ["moeprof", *sys.argv[1:]]
    return reported(
        f"{recipe.name} {number}".strip(),
        folder,
        lambda bar: study.run(recipe, folder, force=force, argv=argv, progress=bar, group=group),
        group,
        quiet=quiet,
        last=last,
    )


def reported(
    title: str, folder: Path, produce: Callable[[Bar], Run], group: Group = ALONE, *, quiet: bool, last: bool = True
) -> Run:
    """The run that `produce` writes to the folder, with its reports; a partial run gets them too.

    A signal that comes when the run is complete does not prevent its reports; with the `last` run the command is settled.
    """
    before = version(folder)
    try:
        with Bar(title, quiet=quiet) as bar:
            run = produce(bar)
    except KeyboardInterrupt as error:
        begun = group.first and version(folder) != before
        if not begun or not (run := Run.open(folder)).record.complete:
            if begun and not launched_folders():
                settle(folder, why(error))
            raise
    except Exception as error:
        if group.first and version(folder) != before and not launched_folders():
            settle(folder, failed(error))
        raise
    if group.first:
        with too_late():
            if last:
                settled.set()
            write_reports(run)
    return run


def version(folder: Path) -> tuple[int, int] | None:
    """What changes if another run is written to the folder; None without a run."""
    try:
        found = (folder / "run.json").stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def launch_all(planned: Planned, out: Path | None, num_ranks: int, *, force: bool, arguments: Sequence[str]) -> None:
    """Runs the same command on every rank; if that fails, the partial run records the reason."""
    for recipe, study in planned:
        study.check(recipe, Group(0, num_ranks, num_ranks))
    timeout_s = max(recipe.parallel.timeout_s for recipe, _ in planned)
    with ExitStack() as folders_made:
        folders = [folders_made.enter_context(new) for new in output_folders(planned, out)]
        for folder in folders:
            emptied(folder, force=force)
        launch_in(folders, num_ranks, arguments, timeout_s)


def launch_in(folders: Sequence[Path], num_ranks: int, arguments: Sequence[str], timeout_s: float) -> None:
    """Runs the same command on every rank, and settles its runs; a signal that comes when all are complete is too late."""
    cause = INTERRUPTED
    try:
        launch(arguments, num_ranks, folders, timeout_s)
    except KeyboardInterrupt as error:
        cause = why(error)
        if not all((folder / "run.json").is_file() and Run.open(folder).record.complete for folder in folders):
            raise
        settled.set()
    except MoeprofError as error:
        cause = f"failed: {error.what}"
        if isinstance(error, RankError) and not any((folder / "run.json").is_file() for folder in folders):
            click.echo(error.trace, err=True, nl=False)  # there is no run directory for a log
        raise
    finally:
        with too_late():
            for folder in folders:
                settle(folder, cause)


def settle(folder: Path, cause: str) -> None:
    """Records in an unfinished run why it stopped."""
    try:
        run = end_in_its_place(folder, cause)
    except MoeprofError:  # a full disk has no room for the reason
        run = Run.open(folder)
    if run is not None and run.record.reasons in ([cause], [UNFINISHED]):
        report_partial(run)


def report_partial(run: Run) -> None:
    """Writes the reports of a partial run and says where it is."""
    with suppress(Exception):  # there may be no disk space or memory for them
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


def output_folders(planned: Planned, out: Path | None) -> list[AbstractContextManager[Path]]:
    """The run directories of all recipes, each made when its block begins: the launcher's choice, parts of `out`, or new ones."""
    if chosen := launched_folders():
        return [nullcontext(folder) for folder in chosen]
    several = len(planned) > 1
    return [
        output_folder(recipe.name, study.command, out / recipe.name if out and several else out) for recipe, study in planned
    ]


@contextmanager
def made_by_first(new: AbstractContextManager[Path], group: Group) -> Iterator[Path]:
    """The run directory that the first rank makes, on all ranks."""
    from moeprof.parallel.collectives import all_gather_json

    with new if group.first else nullcontext(Path()) as mine:
        yield Path(all_gather_json(group, str(mine))[0])


@contextmanager
def ended_at_once(group: Group) -> Iterator[None]:
    """Ends a failing rank at once, because other ranks would not answer its collectives; a single rank raises as usual."""
    if group.alone:
        yield
        return
    end_with_launcher()
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
