"""A report for a terminal of any width."""

import io
import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import (
    Block,
    Bullets,
    Curves,
    Details,
    Document,
    Heading,
    HeatMap,
    Paragraph,
    Stacked,
    Table,
)
from moeprof.reporters.documents.report import document_of_all
from moeprof.reporters.layout import lines_of, wrapped
from moeprof.reporters.plot import as_table, canvas
from moeprof.reporters.shading import REGION_LETTERS, STEPS, map_caption, segments, shaded

PALETTE = (
    "blue",
    "green",
    "yellow",
    "magenta",
    "cyan",
    "red",
    "bright_blue",
    "bright_green",
    "bright_yellow",
    "bright_magenta",
)
PLOT_WIDTH = 100
"""The maximum width of a plot in characters."""
TITLE_STYLES = {1: "bold", 2: "bold cyan"}


CONTROLS = (
    {code: 0x2400 + code for code in range(32) if chr(code) != "\n"} | {0x7F: 0x2421} | dict.fromkeys(range(0x80, 0xA0), "�")
)
"""Symbols for control characters."""

MIN_WIDTH, DEFAULT_WIDTH, MAX_WIDTH = 40, 80, 1000
"""Reports are laid out for no fewer and no more characters, whatever COLUMNS says; a narrower terminal wraps them."""


def render_all(runs: Sequence[Run]) -> str:
    """The reports in the colours and width of the terminal."""
    return render_document(document_of_all(runs), of_this_terminal())


def of_this_terminal() -> Console:
    """A console with the colours of the terminal, and with its width or that of COLUMNS within limits; 0 is an unknown width."""
    console = Console()
    console.width = min(max(console.width or DEFAULT_WIDTH, MIN_WIDTH), MAX_WIDTH)
    return console


def render_document(document: Document, like: Console) -> str:
    """The text that the console `like` would show."""
    console = Console(
        file=io.StringIO(), width=like.width, force_terminal=like.is_terminal, color_system="auto" if like.is_terminal else None
    )
    for block in document:
        console.print(renderable(block, console.width), crop=False, no_wrap=True, overflow="ignore")
    assert isinstance(console.file, io.StringIO)
    return re.sub(r" +$", "", console.file.getvalue(), flags=re.MULTILINE)


def renderable(block: Block, width: int) -> RenderableType:
    """One block; text is never interpreted as markup."""
    match block:
        case Heading(text, level):
            return Padding(words(text, width, TITLE_STYLES.get(level, "cyan")), (1, 0, 0, 0))
        case Paragraph(text):
            return words(text, width)
        case Bullets(items):
            return Group(*(hanging(item, width) for item in items))
        case Table():
            return table(block, width)
        case HeatMap():
            return heat_map(block, width)
        case Stacked():
            return stacked(block, width)
        case Curves():
            return curves(block, width)
        case Details(title):
            return Group(words(f"({title}: see report.md or report.html)", width, "dim"), "")


def words(text: str, width: int, style: str = "") -> Text:
    """Text that is wrapped between words."""
    return Text("\n".join(line for part in text.split("\n") for line in wrapped(printable(part), width)), style)


def printable(text: str) -> str:
    """Text in which a terminal finds nothing to execute: control characters are shown as symbols."""
    return text.translate(CONTROLS)


def hanging(item: str, width: int) -> Text:
    """A bullet with a hanging indent."""
    return Text("- " + "\n  ".join(wrapped(printable(item), width - 2)))


def under(caption: str, width: int) -> Sequence[RenderableType]:
    """A caption and an empty line; nothing without a caption."""
    return [words(caption, width, "dim"), ""] if caption else []


def table(block: Table, width: int) -> RenderableType:
    """A table with words on the left and numbers on the right."""
    columns, *rows = [[printable(cell) for cell in row] for row in (block.columns, *block.rows)]
    lines = lines_of(Table(columns, rows, block.labels), width)
    return Group(*(Text(line.text, "dim" if line.heading else "") for line in lines), *under(block.caption, width))


def heat_map(block: HeatMap, width: int) -> RenderableType:
    """A heat map with a row of shades per label; loads below the even one have the other colour than those above."""
    margin = max(map(len, block.labels), default=0)
    columns = width - margin - 3
    lines = []
    for label, values in zip(block.labels, block.values, strict=True):
        line = Text(printable(f"{label:>{margin}} "))
        for character in shaded(values, block.top, columns, block.even):
            line.append(character, style="blue" if character in STEPS[: len(STEPS) // 2] else "yellow")
        lines.append(line.append("|"))
    return Group(words(block.title, width), *lines, words(map_caption(block, columns), width, "dim"))


def stacked(block: Stacked, width: int) -> RenderableType:
    """A bar of coloured letters per label; the caption explains the letters. A region has the same colour in every bar."""
    margin = max(map(len, (label for label, _ in block.bars)), default=0)
    lines = []
    for label, fractions in block.bars:
        line = Text(printable(f"{label:>{margin}} " if margin else ""))
        for part, letter, length in segments(block.parts, fractions, width - margin - 3):
            line.append(letter * length, style=f"reverse {colour_of(part, block.parts)}" if part else "")
        lines.append(line)
    return Group(words(block.title, width), *lines, *under(block.caption, width))


def colour_of(part: str, parts: Sequence[str]) -> str:
    """The colour of a part: by the order of all regions, or by its order in the bar."""
    regions = list(REGION_LETTERS)
    return PALETTE[(regions if part in regions else list(parts)).index(part) % len(PALETTE)]


def curves(block: Curves, width: int) -> RenderableType:
    """A plot in which a curve and its label have one colour, or a table."""
    title, plot = words(block.title, width), canvas(block, min(width, PLOT_WIDTH))
    if plot is None:
        return Group(title, table(as_table(block), width))
    lines = []
    for spans in plot:
        line = Text("")
        for text, curve in spans:
            line.append(printable(text), style=None if curve is None else PALETTE[curve % len(PALETTE)])
        lines.append(line)
    return Group(title, *lines, *(under(block.caption, width) or [""]))
