"""Prints results: a run on one screen; whole as a terminal report or, into a pipe, as markdown; JSON on request."""

import sys
from collections.abc import Sequence

import click

from moeprof.records.errors import MoeprofError
from moeprof.records.run.run import Run
from moeprof.records.system.files import write_text
from moeprof.records.system.signals import too_late
from moeprof.reporters.documents.document import Document
from moeprof.reporters.formats.registry import render, render_all


def default_format() -> str:
    """`terminal` if stdout is a terminal, else `markdown`."""
    return "terminal" if sys.stdout.isatty() else "markdown"


def run_format(*, full: bool, as_json: bool = False) -> str:
    """How a command prints its runs: on one screen, or as its options ask."""
    return "json" if as_json else default_format() if full else "short"


def show_document(document: Document) -> None:
    """Prints a document that belongs to no run."""
    if sys.stdout.isatty():
        from moeprof.reporters.formats.terminal import of_this_terminal, render_document

        write(render_document(document, of_this_terminal()))
    else:
        from moeprof.reporters.formats.markdown import render_document as markdown

        write(markdown(document))


def show(runs: Sequence[Run], form: str) -> None:
    """Prints every run in one format."""
    write(render_all(runs, form), form)


def show_complete(runs: Sequence[Run], form: str) -> None:
    """Prints runs that have just been completed, also if a signal comes that is too late to stop them."""
    with too_late():
        text = render_all(runs, form)
    write(text, form)  # not delayed, because whoever reads the output may have stopped reading


def write(text: str, form: str = "") -> None:
    """Prints rendered text in the encoding of stdout; a page or XML, which name their encoding, always as UTF-8."""
    if form in ("html", "junit"):
        click.echo(text.encode("utf-8", "replace"), nl=False)
    else:
        click.echo(text, nl=False, file=sys.stdout)  # without `file`, click writes UTF-8 where ASCII is asked for


def write_reports(run: Run) -> None:
    """Writes `report.md` and `report.html` to the run directory; MoeprofError if the disk refuses, which the run survives."""
    try:
        for name, form in (("report.md", "markdown"), ("report.html", "html")):
            write_text(run.path / name, render(run, form))
    except MoeprofError as error:
        kept = f"The run itself is kept: `moeprof report {run.path}` prints its report."
        raise type(error)(error.what, f"{error.remedy} {kept}") from error
