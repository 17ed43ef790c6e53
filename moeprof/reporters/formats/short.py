"""A run on one screen, for a terminal and for a pipe."""

from collections.abc import Iterable, Sequence
from math import ceil

from rich.console import Console
from rich.text import Text

from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import Document
from moeprof.reporters.documents.short import versions
from moeprof.reporters.formats.terminal import of_this_terminal, render_document

LINES = 18
"""Lines of a run, an empty one before its title included."""


def render_all(runs: Sequence[Run]) -> str:
    """As much of every answer as fits, in the colours and width of the terminal."""
    like = of_this_terminal()
    return "".join(first_that_fits(versions(run, like.width), like) for run in runs)


def first_that_fits(documents: Iterable[Document], like: Console) -> str:
    """The first document that takes at most LINES lines of the terminal; the last one if none does."""
    text = ""
    for document in documents:
        text = render_document(document, like)
        if lines_taken(text, like.width) <= LINES:
            break
    return text


def lines_taken(text: str, width: int) -> int:
    """Lines of a terminal, which wraps what is longer than its width."""
    return sum(max(1, ceil(Text.from_ansi(line).cell_len / width)) for line in text.splitlines())
