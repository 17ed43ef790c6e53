"""`moeprof optimize`: applies optimizations one after another and compares them with the model as deployed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.cli.options import named_systems, resolved_recipes, run_options
from moeprof.cli.output import run_format
from moeprof.cli.running import run_all
from moeprof.optimizations.optimization import Option
from moeprof.optimizations.presets import NAMES
from moeprof.optimizations.registry import OPTIMIZATIONS
from moeprof.records.errors import UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import baselines

F = TypeVar("F", bound=Callable[..., Any])


def optimization_options(function: F) -> F:
    """Adds a flag per optimization, each followed by its own options."""
    for optimization in reversed(OPTIMIZATIONS.values()):
        for option in reversed(optimization.options):
            function = option_of(option)(function)
        function = click.option(f"--{optimization.name}", is_flag=True, help=optimization.help)(function)
    return function


def option_of(option: Option) -> Callable[[F], F]:
    """The click option of an optimization's option."""
    if option.is_flag:
        return click.option(f"--{option.name}", is_flag=True, help=option.help)
    kind = click.Choice(option.choices) if option.choices else None
    return click.option(
        f"--{option.name}",
        type=kind,
        default=option.default,
        show_default=True,
        metavar=option.metavar or None,
        help=option.help,
    )


@click.command(name="optimize")
@run_options
@optimization_options
@click.option("--all", "everything", is_flag=True, help="Apply all optimizations; the default if none is named.")
@click.option("--alone", is_flag=True, help="Apply each optimization with only those it needs, not on top of the ones before.")
@click.option(
    "--against",
    multiple=True,
    type=click.Choice(list(baselines())),
    help="Baseline for speed-ups; repeatable.  [default: static]",
)
@click.option(
    "--presets",
    metavar="NAME,...",
    help=f"Compare offloading systems at equal fast memory instead: {', '.join(NAMES)}. See also --slots.",
)
@click.option(
    "--preset",
    "changed",
    multiple=True,
    metavar="NAME:KEY=VALUE,...",
    help="Add an offloading system with other settings, such as hobbit:t1=0.5,depth=1; repeatable.",
)
@click.option(
    "--predictor",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The predictor that the preset sida asks, from `moeprof fit-predictor`.",
)
@click.option("--strict", is_flag=True, help="Refuse a preset whose premise the model does not meet.")
@click.option("--no-sweep", is_flag=True, help="Compare equal batches only; do not search for each variant's best batch.")
@click.option("--timeline", is_flag=True, help="Also record a few steps with torch.profiler.")
@click.pass_obj
def command(
    settings: dict[str, Any],
    /,
    recipes: tuple[str, ...],
    out: Path | None,
    force: bool,
    full: bool,
    as_json: bool,
    everything: bool,
    alone: bool,
    against: tuple[str, ...],
    presets: str | None,
    changed: tuple[str, ...],
    predictor: Path | None,
    strict: bool,
    no_sweep: bool,
    timeline: bool,
    **options: Any,
) -> None:
    """Run the workload of RECIPE as deployed and optimized, in interleaved rounds, and compare speed, memory and outputs.

    Each optimization is applied on top of the ones before, in the order of the options below. Two speed-ups are reported: at equal batch,
    and with each variant at its best batch within the recipe's memory budget. A speed-up is reported only if the outputs agree.

    RECIPE is a built-in name (see `moeprof recipes list`) or the path of a .toml file. Without one, lm-tiny and mt-tiny run.
    """
    flags = {name: options.pop(name.replace("-", "_")) for name in OPTIMIZATIONS}
    chosen = [] if everything else [name for name, wanted in flags.items() if wanted]
    values = {
        option.name: options.pop(option.name.replace("-", "_")) for one in OPTIMIZATIONS.values() for option in one.options
    }
    resolved = resolved_recipes(recipes, **options)

    systems = named_systems(presets, changed)
    if systems and (chosen or everything or against):
        raise UsageError("--presets: cannot be combined with other optimizations or --against", "Run them one after another.")
    if predictor and not systems:
        raise UsageError(
            f"--predictor {predictor}: only presets ask a predictor", "Add --presets sida, or leave the option out."
        )

    def study(recipe: Recipe) -> Any:
        from moeprof.studies.optimize import offloading, optimization

        if systems:
            return offloading(recipe, systems, values | {"predictor": predictor}, timeline=timeline, strict=strict)
        return optimization(recipe, chosen, values, against=against, alone=alone, sweep=not no_sweep, timeline=timeline)

    run_all(study, resolved, out, force=force, form=run_format(full=full, as_json=as_json), settings=settings)
