"""`moeprof report`: recorded runs rendered again, without torch and without running anything."""

from pathlib import Path

import click

from moeprof.cli.output import default_format, show
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import FORMATS


@click.command(name="report", short_help="Render recorded runs again.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: terminal, or markdown into a pipe.")
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def command(runs: tuple[Path, ...], form: str | None, as_json: bool) -> None:
    """Render each RUN, a folder that a command of moeprof wrote."""
    show([Run.open(path) for path in runs], "json" if as_json else form or default_format())
