"""`moeprof optimize`: optimizations applied one after another, beside what the model is deployed with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.cli.options import resolved_recipes, run_options
from moeprof.cli.running import run_all
from moeprof.optimizations.optimization import Option
from moeprof.optimizations.registry import OPTIMIZATIONS
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, baselines

F = TypeVar("F", bound=Callable[..., Any])


def optimization_options(function: F) -> F:
    """A flag per optimization, and its own options behind it."""
    for optimization in reversed(OPTIMIZATIONS.values()):
        for option in reversed(optimization.options):
            function = option_of(option)(function)
        function = click.option(f"--{optimization.name}", is_flag=True, help=optimization.help)(function)
    return function


def option_of(option: Option) -> Callable[[F], F]:
    """As click knows it."""
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


@click.command(name="optimize", short_help="Apply optimizations and compare.")
@run_options
@optimization_options
@click.option("--all", "everything", is_flag=True, help="All optimizations; also what happens where none is named.")
@click.option("--alone", is_flag=True, help="Each optimization by itself, not on top of the ones before.")
@click.option(
    "--against",
    multiple=True,
    type=click.Choice(list(baselines())),
    help="What speed-ups are told against; repeat for several.  [default: static]",
)
@click.option("--no-sweep", is_flag=True, help="No search for the largest batch: equal batches only.")
@click.option("--timeline", is_flag=True, help="Also record a torch.profiler timeline of a few steps.")
@click.pass_obj
def command(
    settings: dict[str, Any],
    /,
    recipes: tuple[str, ...],
    out: Path | None,
    force: bool,
    as_json: bool,
    everything: bool,
    alone: bool,
    against: tuple[str, ...],
    no_sweep: bool,
    timeline: bool,
    **options: Any,
) -> None:
    """Run the workloads of RECIPE as deployed and optimized, in turns, and compare speed, memory and outputs.

    Optimizations build on each other in the order below; none named means all. Every speed-up stands for outputs that were
    compared first: equal batches, and each variant at its own best batch within the recipe's memory budget.
    """
    flags = {name: options.pop(name.replace("-", "_")) for name in OPTIMIZATIONS}
    chosen = [] if everything else [name for name, wanted in flags.items() if wanted]
    values = {
        option.name: options.pop(option.name.replace("-", "_")) for one in OPTIMIZATIONS.values() for option in one.options
    }
    resolved = resolved_recipes(recipes, **options)

    def study(recipe: Recipe) -> Any:
        from moeprof.studies.optimize import optimization

        told = against or (STATIC.label,)
        return optimization(recipe, chosen, values, against=told, alone=alone, sweep=not no_sweep, timeline=timeline)

    run_all(study, resolved, out, force=force, as_json=as_json, settings=settings)
