"""`moeprof report`: renders recorded runs again, without torch and without running anything."""

from pathlib import Path

import click

from moeprof.cli.output import default_format, show
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import FORMATS


@click.command(name="report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Output format.  [default: terminal; markdown if piped]")
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
def command(runs: tuple[Path, ...], form: str | None, as_json: bool) -> None:
    """Render each RUN, a run directory that moeprof wrote."""
    show([Run.open(path) for path in runs], "json" if as_json else form or default_format())
