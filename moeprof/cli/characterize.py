"""`moeprof characterize`: runs the workloads as deployed and records routing, time and memory; or says what a trace says alone."""

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from moeprof.cli.options import resolved_recipes, run_options
from moeprof.cli.output import run_format
from moeprof.cli.trace_options import NAMES, import_options, trace_options
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import is_builtin
from moeprof.records.recipe.recipe import Recipe

OF_BOTH = ("recipes", "out", "force", "full", "as_json")
"""Parameters of a recipe's run and of a trace."""
OF_TRACES = ("variant", *NAMES)
"""Parameters of a trace alone; all others are those of a recipe's run."""


@click.command(name="characterize")
@run_options
@click.option("--timeline", is_flag=True, help="Also record a few steps with torch.profiler.")
@click.option("--variant", metavar="NAME", help="Variant of the run whose routing is characterized.  [default: static]")
@trace_options
@click.pass_context
def command(
    context: click.Context,
    /,
    recipes: tuple[str, ...],
    out: Path | None,
    force: bool,
    full: bool,
    as_json: bool,
    timeline: bool,
    **options: Any,
) -> None:
    """Run the workload of RECIPE as deployed (static gating) and record routing, time and memory beside its dense twin.

    RECIPE is a built-in name (see `moeprof recipes list`) or the path of a .toml file. Without one, lm-tiny and mt-tiny run.

    With a TRACE in place of RECIPE no model runs: a run directory, or a file of routing or of expert counts, of any engine; all files
    of one recording may be given. Its expert loads, locality, drift and hot experts are reported, each beside its value by chance.
    The options from --variant on are for traces, those before for recipes, and --out, --force, --full and --json for both.
    """
    refuse_absent(recipes)
    traces = [name for name in recipes if is_trace(name)]
    refuse_options_of_other(context, traces)
    form = run_format(full=full, as_json=as_json)
    of_trace = {name: options.pop(name) for name in OF_TRACES}
    if traces:
        characterize(traces, recipes, out, of_trace, force=force, form=form, quiet=context.obj["quiet"])
        return
    from moeprof.cli.running import run_all

    resolved = resolved_recipes(recipes, **options)

    def study(recipe: Recipe) -> Any:
        from moeprof.studies.characterize import characterization, deployed

        return characterization(deployed(recipe), timeline=timeline)

    run_all(study, resolved, out, force=force, form=form, settings=context.obj)


def is_trace(name: str) -> bool:
    """Whether an argument is an existing file or folder, and no recipe: a built-in name is a recipe, whatever the folder holds."""
    return not is_builtin(name) and Path(name).suffix.lower() != ".toml" and Path(name).exists()


def refuse_absent(given: tuple[str, ...]) -> None:
    """UsageError for the name of a file, but not of a recipe, that does not exist."""
    for name in given:
        if Path(name).suffix.lower() not in ("", ".toml") and not is_builtin(name) and not Path(name).exists():
            raise UsageError(
                f"trace {name}: no such file", "Give a trace that exists, or a recipe (see `moeprof recipes list`)."
            )


def characterize(
    traces: list[str],
    given: tuple[str, ...],
    out: Path | None,
    options: dict[str, Any],
    *,
    force: bool,
    form: str,
    quiet: bool,
) -> None:
    """Writes the run directory of one trace, perhaps of several files, and shows its report."""
    if other := [name for name in given if name not in traces]:
        raise UsageError(f"trace {traces[0]}: recipe {other[0]} is given too", "Give a recipe, or the files of one trace.")
    from moeprof.cli.output import show_complete
    from moeprof.cli.running import reported
    from moeprof.records.run.folder import output_folder
    from moeprof.studies.characterize_trace import characterize_trace, read_recorded

    recorded = read_recorded([Path(name) for name in traces], options["variant"], import_options(options))
    name, argv = recorded.request.trace.name, ["moeprof", *sys.argv[1:]]
    with output_folder(name, "characterize", out) as folder:
        run = reported(
            name, folder, lambda bar: characterize_trace(recorded, folder, force=force, argv=argv, progress=bar), quiet=quiet
        )
    show_complete([run], form)


def refuse_options_of_other(context: click.Context, traces: list[str]) -> None:
    """UsageError if an option of a recipe's run is given with a trace, or one of a trace without."""
    for parameter in context.command.params:
        name = parameter.name or ""
        chosen = context.get_parameter_source(name) == ParameterSource.COMMANDLINE
        if chosen and name not in OF_BOTH and (name in OF_TRACES) != bool(traces):
            what = "a run of a model" if traces else "a trace"
            given = f"{traces[0]} is a trace, so no model runs" if traces else "no trace is given"
            raise UsageError(
                f"{parameter.opts[0]}: an option of {what}; {given}", "Remove it; see `moeprof characterize --help`."
            )
