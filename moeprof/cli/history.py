"""`moeprof history`: how the numbers of a recipe changed from run to run."""

from pathlib import Path

import click

from moeprof.cli.options import full_option
from moeprof.cli.output import run_format, write
from moeprof.records.errors import UsageError, suggestion


@click.command(name="history")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--only", multiple=True, metavar="METRIC", help="Compare this metric only; repeatable.")
@click.option("--allow-machine-mismatch", is_flag=True, help="Compare times even if they were measured on different machines.")
@click.option("--format", "form", metavar="FORMAT", help="short, terminal, markdown, html or json.  [default: short]")
@full_option
@click.option("--json", "as_json", is_flag=True, help="Same as --format json.")
def command(
    paths: tuple[Path, ...], only: tuple[str, ...], allow_machine_mismatch: bool, form: str | None, full: bool, as_json: bool
) -> None:
    """Show how the numbers of each recipe changed over PATHS: runs, baseline files, or a folder that has them.

    They are taken in the order of their times, and each is compared with the one before it, as `moeprof compare` does. Runs of one
    recipe in a folder of their own are processes of one run; with at least 3 processes speed is judged too.
    """
    from moeprof.analysis.comparison.history import histories
    from moeprof.analysis.comparison.verdicts import Rules
    from moeprof.cli.compare import known_metric
    from moeprof.reporters.history import FORMATS, render

    chosen = run_format(full=full, as_json=as_json) if as_json or form is None else form
    if chosen not in FORMATS:
        raise UsageError(f"unknown format {chosen!r}", f"{suggestion(chosen, FORMATS)}Use one of {', '.join(FORMATS)}.")
    rules = Rules({}, tuple(map(known_metric, only)), allow_machine_mismatch)
    write(render(histories(paths, rules), chosen), chosen)
