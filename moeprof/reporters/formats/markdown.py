"""A report as GitHub-flavoured markdown: `report.md`, and the default off a terminal."""

import re
from collections.abc import Sequence

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
from moeprof.reporters.plot import NOTHING, as_table, canvas, has_points
from moeprof.reporters.shading import map_caption, segments, shaded

HEAT_MAP_WIDTH = 128
BAR_WIDTH = 100
SPECIAL = re.compile(r"([\\`*_\[\]<>|])")


def render_all(runs: Sequence[Run]) -> str:
    """The reports as markdown text."""
    return render_document(document_of_all(runs))


def render_document(document: Document) -> str:
    """Blocks separated by blank lines."""
    return "\n\n".join(rendered(block) for block in document) + "\n"


def rendered(block: Block) -> str:
    """One block, with all text escaped."""
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escaped(text)}"
        case Paragraph(text):
            return escaped(text)
        case Bullets(items):
            return "\n".join(f"- {escaped(item)}" for item in items)
        case Table():
            return table(block)
        case HeatMap():
            return heat_map(block)
        case Stacked():
            return stacked(block)
        case Curves():
            return curves(block)
        case Details(title, blocks):
            return f"<details><summary>{escaped(title)}</summary>\n\n{render_document(list(blocks))}\n</details>"


def escaped(text: str) -> str:
    """Text with markdown's special characters escaped."""
    return SPECIAL.sub(r"\\\1", text)


def table(block: Table) -> str:
    """A pipe table, padded so that it is also readable as plain text."""
    cells = [[escaped(cell) for cell in row] for row in [block.columns, *block.rows]]
    widths = [max(len(row[index]) for row in cells) for index in range(len(block.columns))]

    def line(row: list[str]) -> str:
        padded = (
            f"{cell:<{w}}" if i < block.labels else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = [f":{'-' * (w - 1)}" if i < block.labels else f"{'-' * (w - 1)}:" for i, w in enumerate(widths)]
    lines = [line(cells[0]), f"|{'|'.join(f' {r} ' for r in rule)}|", *map(line, cells[1:])]
    return "\n".join(lines) + (f"\n\n{escaped(block.caption)}" if block.caption else "")


def heat_map(block: HeatMap) -> str:
    """A heat map as a code block of shades."""
    margin = max(map(len, block.labels), default=0)
    lines = [
        f"{label:>{margin}} {shaded(values, block.top, HEAT_MAP_WIDTH, block.even)}|"
        for label, values in zip(block.labels, block.values, strict=True)
    ]
    return figure(block.title, lines, map_caption(block, HEAT_MAP_WIDTH))


def stacked(block: Stacked) -> str:
    """Stacked bars as a code block of letters."""
    margin = max(map(len, (label for label, _ in block.bars)), default=0)
    lines = [
        f"{label:>{margin}} " + "".join(letter * cells for _, letter, cells in segments(block.parts, fractions, BAR_WIDTH))
        for label, fractions in block.bars
    ]
    return figure(block.title, lines, block.caption)


def curves(block: Curves) -> str:
    """A plot as a code block, or a table; a sentence if no curve has a point."""
    if not has_points(block):
        return "\n\n".join(escaped(text) for text in (block.title, NOTHING, block.caption) if text)
    plot = canvas(block, BAR_WIDTH)
    if plot is None:
        return f"{escaped(block.title)}\n\n{table(as_table(block))}"
    lines = ["".join(text for text, _ in spans).rstrip() for spans in plot]
    return figure(block.title, lines, block.caption)


def figure(title: str, lines: list[str], caption: str) -> str:
    """A code block between a title and a caption."""
    body = "\n".join(lines).replace("```", "'''")
    return f"{escaped(title)}\n\n```text\n{body}\n```" + (f"\n\n{escaped(caption)}" if caption else "")
