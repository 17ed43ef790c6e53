"""A run on one screen, for a terminal and for a pipe."""

from collections.abc import Sequence

from rich.console import Console

from moeprof.records.run.run import Run
from moeprof.reporters.documents.short import versions
from moeprof.reporters.formats.terminal import of_this_terminal, render_document

LINES = 18
"""Lines of a run, an empty one before its title included."""


def render_all(runs: Sequence[Run]) -> str:
    """As much of every answer as fits, in the colours and width of the terminal."""
    like = of_this_terminal()
    return "".join(fitted(run, like) for run in runs)


def fitted(run: Run, like: Console) -> str:
    """The first version that has at most LINES lines; the shortest one if none has."""
    text = ""
    for document in versions(run):
        text = render_document(document, like)
        if text.count("\n") <= LINES:
            break
    return text
