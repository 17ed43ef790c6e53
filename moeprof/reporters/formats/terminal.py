"""A report for a terminal of any width."""

import io
import re
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table as RichTable
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
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.layout import lines_of
from moeprof.reporters.plot import canvas
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


def render(run: Run) -> str:
    """The report in the colours and width of the terminal."""
    return render_document(document_of(run), of_this_terminal())


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
        console.print(renderable(block, console.width), crop=False)
    assert isinstance(console.file, io.StringIO)
    return re.sub(r" +$", "", console.file.getvalue(), flags=re.MULTILINE)


def words(text: str, style: str = "") -> Text:
    """Text in which a terminal finds nothing to execute: control characters are shown as symbols."""
    return Text(text.translate(CONTROLS), style=style)


def renderable(block: Block, width: int) -> RenderableType:
    """One block; text is never interpreted as markup."""
    match block:
        case Heading(text, level):
            return Padding(words(text, style=TITLE_STYLES.get(level, "cyan")), (1, 0, 0, 0))
        case Paragraph(text):
            return words(text)
        case Bullets(items):
            return Group(*(hanging(item) for item in items))
        case Table():
            return table(block, width)
        case HeatMap():
            return heat_map(block, width)
        case Stacked():
            return stacked(block, width)
        case Curves():
            return curves(block, width)
        case Details(title):
            return words(f"({title}: see report.md or report.html)\n", style="dim")


def hanging(item: str) -> RenderableType:
    """A bullet with a hanging indent."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row(Text("-"), words(item))
    return grid


def table(block: Table, width: int) -> RenderableType:
    """A table with words on the left and numbers on the right."""
    columns, *rows = [[cell.translate(CONTROLS) for cell in row] for row in (block.columns, *block.rows)]
    found = lines_of(Table(columns, rows, block.labels), width)
    lines = [line_of(line.text, "dim" if line.heading else "") for line in found]
    return Group(*lines, words(f"{block.caption}\n", "dim")) if block.caption else Group(*lines)


def line_of(text: str, style: str = "") -> Text:
    """A line that is laid out already: a terminal may wrap it, the report does not."""
    return Text(text, style=style, no_wrap=True, overflow="ignore")


def heat_map(block: HeatMap, width: int) -> RenderableType:
    """A heat map with a row of shades per label; loads below the even one have the other colour than those above."""
    margin = max(map(len, block.labels), default=0)
    columns = width - margin - 3
    lines = []
    for label, values in zip(block.labels, block.values, strict=True):
        line = words(f"{label:>{margin}} ")
        for character in shaded(values, block.top, columns, block.even):
            line.append(character, style="blue" if character in STEPS[: len(STEPS) // 2] else "yellow")
        lines.append(line + Text("|"))
    return Group(words(block.title), *lines, words(map_caption(block, columns), "dim"))


def stacked(block: Stacked, width: int) -> RenderableType:
    """A bar of coloured letters per label; the caption explains the letters. A region has the same colour in every bar."""
    margin = max(map(len, (label for label, _ in block.bars)), default=0)
    lines = []
    for label, fractions in block.bars:
        line = words(f"{label:>{margin}} " if margin else "")
        for part, letter, length in segments(block.parts, fractions, width - margin - 3):
            line.append(letter * length, style=f"reverse {colour_of(part, block.parts)}" if part else "")
        lines.append(line)
    return Group(words(block.title), *lines, words(block.caption + "\n", "dim"))


def colour_of(part: str, parts: Sequence[str]) -> str:
    """The colour of a part: by the order of all regions, or by its order in the bar."""
    regions = list(REGION_LETTERS)
    return PALETTE[(regions if part in regions else list(parts)).index(part) % len(PALETTE)]


def curves(block: Curves, width: int) -> RenderableType:
    """A plot in which letters and dots have the colour of their curve."""
    lines = []
    for spans in canvas(block, min(width, PLOT_WIDTH)):
        line = Text()
        for text, curve in spans:
            line.append(text.translate(CONTROLS), style=None if curve is None else PALETTE[curve % len(PALETTE)])
        lines.append(line)
    return Group(words(block.title), *lines, words(f"{block.caption}\n" if block.caption else "", "dim"))
