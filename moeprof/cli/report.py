"""`moeprof report`: renders recorded runs again, without torch and without running anything."""

from collections.abc import Iterator
from pathlib import Path

import click

from moeprof.cli.options import full_option
from moeprof.cli.output import run_format, show, write_reports
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import FORMATS


@click.command(name="report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Output format.  [default: short]")
@full_option
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
@click.option("--recompute", is_flag=True, help="Before rendering, derive the metrics of each run again from its raw files.")
def command(runs: tuple[Path, ...], form: str | None, full: bool, as_json: bool, recompute: bool) -> None:
    """Render each RUN, a run directory that moeprof wrote.

    With --recompute, metrics.csv and the reports in the run directory are replaced. Rows whose raw files are missing, as in runs of
    older versions, stay as they are.
    """
    opened = [Run.open(path) for path in runs]
    chosen = run_format(full=full, as_json=as_json) if as_json or form is None else form
    show(list(recomputed(opened)) if recompute else opened, chosen)


def recomputed(runs: list[Run]) -> Iterator[Run]:
    """The runs with their metrics derived again; what was done is reported on stderr."""
    from moeprof.studies.recompute import recompute

    for run in runs:
        done = recompute(run)
        kept = f", {done.num_kept:,} kept" if done.num_kept else ""
        click.echo(f"{run.path}: {done.num_derived:,} rows derived{kept}", err=True)
        for name, files in done.missing.items() if done.num_kept else ():
            click.echo(f"  {name}: {', '.join(files)} missing", err=True)
        write_reports(done.run)
        yield done.run
