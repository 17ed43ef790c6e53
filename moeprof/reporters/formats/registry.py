"""The report formats by name; a new one is one file and one line here."""

from collections.abc import Sequence
from importlib import import_module

from moeprof.records.run.run import Run

FORMATS = ("short", "terminal", "markdown", "html", "json", "csv")


def render(run: Run, form: str) -> str:
    """The run in one of FORMATS."""
    return render_all([run], form)


def render_all(runs: Sequence[Run], form: str) -> str:
    """One document of all runs, in one of FORMATS."""
    rendered: str = import_module(f"moeprof.reporters.formats.{form}").render_all(runs)
    return rendered
