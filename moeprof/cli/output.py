"""Prints results: the terminal report on a terminal, markdown into a pipe, JSON on request."""

import json
import sys
from collections.abc import Sequence

import click

from moeprof.records.errors import MoeprofError
from moeprof.records.files import write_text
from moeprof.records.run.run import Run
from moeprof.records.signals import too_late
from moeprof.reporters.documents.document import Document
from moeprof.reporters.formats.registry import render


def default_format() -> str:
    """`terminal` if stdout is a terminal, else `markdown`."""
    return "terminal" if sys.stdout.isatty() else "markdown"


def show_document(document: Document) -> None:
    """Prints a document that belongs to no run."""
    from moeprof.reporters.formats import markdown

    if sys.stdout.isatty():
        from rich.console import Console

        from moeprof.reporters.formats.terminal import render_document

        click.echo(render_document(document, Console()), nl=False)
    else:
        click.echo(markdown.render_document(document), nl=False)


def show(runs: Sequence[Run], form: str) -> None:
    """Prints every run in one format."""
    click.echo(rendered(runs, form), nl=False)


def show_complete(runs: Sequence[Run], form: str) -> None:
    """Prints runs that have just been completed, also if a signal comes that is too late to stop them."""
    with too_late():
        text = rendered(runs, form)
    click.echo(text, nl=False)  # not delayed, because whoever reads the output may have stopped reading


def rendered(runs: Sequence[Run], form: str) -> str:
    """Every run in one format; several runs as JSON become one list."""
    if form != "json":
        return "".join(render(run, form) for run in runs)
    documents = [json.loads(render(run, "json")) for run in runs]
    return json.dumps(documents[0] if len(documents) == 1 else documents, indent=1) + "\n"


def write_reports(run: Run) -> None:
    """Writes `report.md` and `report.html` to the run directory; MoeprofError if the disk refuses, which the run survives."""
    try:
        for name, form in (("report.md", "markdown"), ("report.html", "html")):
            write_text(run.path / name, render(run, form))
    except MoeprofError as error:
        kept = f"The run itself is kept: `moeprof report {run.path}` prints its report."
        raise type(error)(error.what, f"{error.remedy} {kept}") from error
