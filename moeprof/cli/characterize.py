"""`moeprof characterize`: the workloads unchanged, and where routing, time and memory go."""

from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import resolved_recipes, run_options
from moeprof.cli.running import run_all
from moeprof.records.recipe.recipe import Recipe


@click.command(name="characterize", short_help="Run workloads as deployed.")
@run_options
@click.option("--timeline", is_flag=True, help="Also record a torch.profiler timeline of a few steps.")
@click.pass_obj
def command(
    settings: dict[str, Any],
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

    def study(_recipe: Recipe) -> Any:
        from moeprof.studies.characterize import characterization

        return characterization(timeline=timeline)

    run_all(study, resolved, out, force=force, as_json=as_json, settings=settings)
