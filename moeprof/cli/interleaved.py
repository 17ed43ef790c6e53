"""The part of `moeprof compare` that measures two sides in interleaved rounds and keeps them as two baseline files."""

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


def measuring_options(function: F) -> F:
    """Adds the options that say what `compare` measures, and how often."""
    for decorator in reversed(
        (
            click.option(
                "--run-both",
                "recipes",
                multiple=True,
                metavar="RECIPE",
                help="Measure A and B now, in interleaved rounds; repeatable.",
            ),
            click.option(
                "--a", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key in A, the baseline; repeatable."
            ),
            click.option(
                "--b", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a recipe key in B, the candidate; repeatable."
            ),
            click.option(
                "--set",
                "shared",
                multiple=True,
                metavar="SECTION.KEY=VALUE",
                help="Override a recipe key in A and B; repeatable.",
            ),
            click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Device that runs the models of A and B."),
            click.option(
                "--against-checkout",
                "checkout",
                type=click.Path(path_type=Path, file_okay=False, exists=True, resolve_path=True),
                metavar="DIR",
                help="Measure A with the code of another checkout; without --run-both: lm-tiny and mt-tiny.",
            ),
            click.option(
                "--variant",
                "variants",
                multiple=True,
                type=click.Choice(list(timed_variants())),
                help="Variant to time; repeatable.  [default: static and dynamic]",
            ),
            click.option(
                "--processes",
                type=click.IntRange(min=3),
                metavar="N",
                default=PROCESSES,
                show_default=True,
                help="Fresh processes per side.",
            ),
            click.option(
                "--out", type=click.Path(path_type=Path), metavar="DIR", help="Folder for the measurements a.json and b.json."
            ),
            click.option("--force", is_flag=True, help="Replace earlier measurements in the output folder."),
        )
    ):
        function = decorator(function)
    return function


def wants_measurement(
    recipes: Sequence[str], checkout: Path | None, sides: Sequence[Path | None], overrides: Sequence[str]
) -> bool:
    """Whether the command asks to measure; UsageError if it asks for both a measurement and recorded runs, or for neither."""
    wanted, given = bool(recipes or checkout), [side for side in sides if side is not None]
    if wanted and given:
        raise UsageError(
            f"compare {given[0]}: recorded runs cannot be combined with --run-both or --against-checkout",
            "Give two runs, or --run-both RECIPE.",
        )
    if not wanted and len(given) < 2:
        raise UsageError("compare: two sides are required", "Give BASELINE and CANDIDATE, or --run-both RECIPE.")
    if not wanted and overrides:
        raise UsageError(
            f"compare: {overrides[0]} has no effect on recorded runs", "Remove it, or give --run-both RECIPE to measure."
        )
    return wanted


def measure_sides(
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
) -> tuple[tuple[str, list["Measurement"]], tuple[str, list["Measurement"]], tuple[Path, Path]]:
    """The name and the measurements of each side, and the files in `out` to which they are written."""
    from moeprof.analysis.comparison.measurement import write_baseline
    from moeprof.cli.options import DEFAULT_RECIPES
    from moeprof.cli.progress import Bar
    from moeprof.records.run.folder import alone_in, output_folder
    from moeprof.records.system.signals import delayed
    from moeprof.studies.ab_test import measure_interleaved, sides_of

    names = list(recipes) or list(DEFAULT_RECIPES)
    pairs = []
    with output_folder(Path(names[0]).stem, "compare", out) as folder, alone_in(folder):
        paths = (folder / "a.json", folder / "b.json")
        if not force and (older := [path for path in paths if path.exists()]):
            raise UsageError(f"{older[0]}: the file already exists", "Give another --out, or --force to replace it.")
        for recipe in names:
            sides = sides_of(recipe, shared, a, b, variants or ("static", "dynamic"), checkout)
            with Bar(Path(recipe).stem, quiet=quiet) as bar:
                pairs.append(measure_interleaved(sides, processes, bar))
        before, after = (list(side) for side in zip(*pairs, strict=True))
        with delayed():  # both files or none
            for path, side in zip(paths, (before, after), strict=True):
                write_baseline(path, side)
    return (sides[0].name, before), (sides[1].name, after), paths
