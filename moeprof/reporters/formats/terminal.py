"""A report for a terminal of any width."""

import io

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
from moeprof.reporters.plot import canvas
from moeprof.reporters.shading import segments, shaded

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
        console.print(renderable(block, console.width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def renderable(block: Block, width: int) -> RenderableType:
    """One block; text is never interpreted as markup."""
    match block:
        case Heading(text, level):
            return Padding(Text(text, style=TITLE_STYLES.get(level, "cyan")), (1, 0, 0, 0))
        case Paragraph(text):
            return Text(text)
        case Bullets(items):
            return Group(*(hanging(item) for item in items))
        case Table():
            return table(block)
        case HeatMap():
            return heat_map(block, width)
        case Stacked():
            return stacked(block, width)
        case Curves():
            return curves(block, width)
        case Details(title):
            return Text(f"({title}: see report.md or report.html)\n", style="dim")


def hanging(item: str) -> RenderableType:
    """A bullet with a hanging indent."""
    grid = RichTable.grid(padding=(0, 1))
    grid.add_row(Text("-"), Text(item))
    return grid


def table(block: Table) -> RenderableType:
    """A table with words on the left and numbers on the right."""
    shown = RichTable(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for index, column in enumerate(block.columns):
        label = index < block.labels
        shown.add_column(Text(column), justify="left" if label else "right", no_wrap=label and index == 0, overflow="fold")
    for row in block.rows:
        shown.add_row(*(Text(cell) for cell in row))
    return Group(shown, Text(block.caption + "\n", style="dim")) if block.caption else shown


def heat_map(block: HeatMap, width: int) -> RenderableType:
    """A heat map with a row of shades per label."""
    margin = max(map(len, block.labels), default=0)
    lines = [
        Text(f"{label:>{margin}} ") + Text(shaded(values, block.top, width - margin - 3), style="yellow") + Text("|")
        for label, values in zip(block.labels, block.values, strict=True)
    ]
    return Group(Text(block.title), *lines, Text(block.caption, style="dim"))


def stacked(block: Stacked, width: int) -> RenderableType:
    """A bar of coloured letters per label; the caption explains the letters."""
    margin = max(map(len, (label for label, _ in block.bars)), default=0)
    styles = {part: PALETTE[index % len(PALETTE)] for index, part in enumerate(block.parts)}
    lines = []
    for label, fractions in block.bars:
        line = Text(f"{label:>{margin}} ")
        for part, letter, length in segments(block.parts, fractions, width - margin - 3):
            line.append(letter * length, style=f"reverse {styles[part]}")
        lines.append(line)
    return Group(Text(block.title), *lines, Text(block.caption + "\n", style="dim"))


def curves(block: Curves, width: int) -> RenderableType:
    """A plot in which letters and dots have the colour of their curve."""
    lines = []
    for spans in canvas(block, min(width, PLOT_WIDTH)):
        line = Text()
        for text, curve in spans:
            line.append(text, style=None if curve is None else PALETTE[curve % len(PALETTE)])
        lines.append(line)
    return Group(Text(block.title), *lines, Text(f"{block.caption}\n" if block.caption else "", style="dim"))
