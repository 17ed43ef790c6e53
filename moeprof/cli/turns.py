"""The part of `moeprof compare` that measures: two sides in turns, each in fresh processes, kept as two baseline files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from moeprof.records.errors import UsageError
from moeprof.records.recipe.variant import timed_variants

if TYPE_CHECKING:
    from moeprof.analysis.comparison.measurement import Measurement

F = TypeVar("F", bound=Callable[..., Any])

PROCESSES = 5


def turn_options(function: F) -> F:
    """What to measure, and how often."""
    for decorator in reversed(
        (
            click.option(
                "--run-both", "recipes", multiple=True, metavar="RECIPE", help="Measure A and B in turns. Repeatable."
            ),
            click.option("--a", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key in A, the baseline."),
            click.option("--b", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key in B, the candidate."),
            click.option("--set", "shared", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key in both."),
            click.option(
                "--against-checkout",
                "checkout",
                type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
                help="Run A with the code of another checkout.  [recipes: lm-tiny and mt-tiny]",
            ),
            click.option(
                "--variant",
                "variants",
                multiple=True,
                type=click.Choice(list(timed_variants())),
                help="What is timed; repeatable.  [default: static and dynamic]",
            ),
            click.option(
                "--processes",
                type=click.IntRange(min=3),
                default=PROCESSES,
                show_default=True,
                help="Fresh processes a side.",
            ),
            click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep a.json and b.json here."),
            click.option("--force", is_flag=True, help="Replace older measurements in the output folder."),
        )
    ):
        function = decorator(function)
    return function


def asked_for(recipes: Sequence[str], checkout: Path | None, sides: Sequence[Path | None], sets: Sequence[str]) -> bool:
    """Whether to measure; UsageError where the command asks for both or neither."""
    wanted, given = bool(recipes or checkout), [side for side in sides if side is not None]
    if wanted and given:
        raise UsageError(
            f"compare {given[0]}: recorded runs cannot be measured in turns", "Give two runs, or --run-both RECIPE."
        )
    if not wanted and len(given) < 2:
        raise UsageError("compare: two sides are needed", "Give BASELINE and CANDIDATE, or --run-both RECIPE.")
    if not wanted and sets:
        raise UsageError(f"compare: {sets[0]} changes nothing in recorded runs", "Give --run-both RECIPE to measure.")
    return wanted


def measured(
    recipes: Sequence[str],
    a: Sequence[str],
    b: Sequence[str],
    shared: Sequence[str],
    checkout: Path | None,
    variants: Sequence[str],
    processes: int,
    out: Path | None,
    force: bool,
    quiet: bool,
) -> tuple[tuple[str, list["Measurement"]], tuple[str, list["Measurement"]]]:
    """Each side's name and subjects, kept in `out`."""
    from moeprof.analysis.comparison.measurement import write_baseline
    from moeprof.cli.options import DEFAULT_RECIPES
    from moeprof.cli.progress import Bar
    from moeprof.records.run.writer import default_folder
    from moeprof.studies.ab_test import COMMAND, in_turns, sides_of

    names = list(recipes) or list(DEFAULT_RECIPES)
    folder = out or default_folder(Path(names[0]).stem, COMMAND)
    paths = [folder / "a.json", folder / "b.json"]
    if not force and (older := [path for path in paths if path.exists()]):
        raise UsageError(f"{older[0]}: it exists already", "Give another --out, or --force to replace it.")
    pairs = []
    for recipe in names:
        sides = sides_of(recipe, shared, a, b, variants or ("static", "dynamic"), checkout)
        with Bar(Path(recipe).stem, quiet=quiet) as bar:
            pairs.append(in_turns(sides, processes, bar))
    folder.mkdir(parents=True, exist_ok=True)
    subjects = [list(side) for side in zip(*pairs, strict=True)]
    for path, side in zip(paths, subjects, strict=True):
        write_baseline(path, side)
    return (sides[0].name, subjects[0]), (sides[1].name, subjects[1])
