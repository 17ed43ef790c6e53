"""`moeprof characterize`: runs the workloads as deployed and records routing, time and memory."""

from pathlib import Path
from typing import Any

import click

from moeprof.cli.options import resolved_recipes, run_options
from moeprof.cli.running import run_all
from moeprof.records.recipe.recipe import Recipe


@click.command(name="characterize")
@run_options
@click.option("--timeline", is_flag=True, help="Also record a few steps with torch.profiler.")
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
    """Run the workload of RECIPE as deployed (static gating) and record routing, time and memory beside its dense twin.

    RECIPE is a built-in name (see `moeprof recipes list`) or the path of a .toml file. Without one, lm-tiny and mt-tiny run.
    """
    resolved = resolved_recipes(recipes, **options)

    def study(recipe: Recipe) -> Any:
        from moeprof.studies.characterize import characterization, deployed

        return characterization(deployed(recipe), timeline=timeline)

    run_all(study, resolved, out, force=force, as_json=as_json, settings=settings)
