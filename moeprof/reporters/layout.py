"""Tables as lines of characters: no word is broken, and no column disappears.

A table that is too wide is tried with headings of more lines, then with label columns that wrap between words, then in blocks of columns
below each other, whose rows repeat their labels, and at last as records with a line per cell. Only a word that is longer than the line
is longer than the line.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from rich.cells import cell_len

from moeprof.reporters.documents.document import Table

GAP = 2
"""Blanks between two columns."""
NARROW = 20
"""Characters that a label column keeps if its words are shorter, as long as columns can go to further blocks."""
WORD = re.compile(r"(?:`[^`]*`|\S)+")
"""What no line is broken in: a word, and whatever is in backticks, so that a command or a path can be copied."""


@dataclass(frozen=True)
class TableLine:
    """A line of a table."""

    text: str
    heading: bool = False


@dataclass(frozen=True)
class TableColumn:
    """A heading and its cells, one per row of the table."""

    heading: str
    cells: Sequence[str]
    label: bool

    @property
    def widest(self) -> int:
        """The length of the longest cell."""
        return max(map(cell_len, self.cells), default=0)

    @property
    def narrowest(self) -> int:
        """The width below which a word would break."""
        return max((cell_len(word) for text in (self.heading, *self.cells) for word in words_of(text)), default=0)

    def width(self, heading_lines: int) -> int:
        """The least width in which no cell wraps and the heading has at most so many lines."""
        words = max(map(cell_len, words_of(self.heading)), default=0)
        most = max(cell_len(self.heading), words)
        return max(self.widest, next(w for w in range(words, most + 1) if len(wrapped(self.heading, w)) <= heading_lines))


def lines_of(table: Table, width: int) -> list[TableLine]:
    """The headings and rows of a table, at most `width` characters wide unless a word is longer."""
    columns = [
        TableColumn(" ".join(heading.split()), [" ".join(row[index].split()) for row in table.rows], index < table.labels)
        for index, heading in enumerate(table.columns)
    ]
    for heading_lines in range(1, 1 + max((len(words_of(column.heading)) or 1 for column in columns), default=1)):
        widths = [column.width(heading_lines) for column in columns]
        if total(widths) <= width:
            return list(block(columns, widths))
    labels, numbers = [one for one in columns if one.label], [one for one in columns if not one.label]
    for least in (NARROW, 0):
        if found := in_blocks(labels, numbers, width, least):
            return found
    return list(records(columns, width))


def total(widths: Sequence[int]) -> int:
    """The width of a line of columns."""
    return sum(widths) + GAP * (len(widths) - 1)


def in_blocks(labels: Sequence[TableColumn], numbers: Sequence[TableColumn], width: int, least: int) -> list[TableLine]:
    """Blocks of as many columns as fit beside the labels, which wrap; empty if not even one fits."""
    needed = [column.width(len(words_of(column.heading)) or 1) for column in numbers]
    floors = [max(column.narrowest, min(least, column.widest)) for column in labels]
    if total([*floors, max(needed, default=0)]) > width:
        return []
    room = width - sum(GAP + size for size in needed)
    taken = shrunk(labels, floors, max(room, total(floors)))
    lines: list[TableLine] = []
    rest = list(zip(numbers, needed, strict=True))
    while rest or not lines:
        count = max((n for n in range(len(rest) + 1) if total([*taken, *(size for _, size in rest[:n])]) <= width), default=0)
        chosen, rest = rest[:count], rest[count:]
        lines += [*([TableLine("")] if lines else [])]
        lines += block([*labels, *(column for column, _ in chosen)], [*taken, *(size for _, size in chosen)])
    return lines


def shrunk(labels: Sequence[TableColumn], floors: Sequence[int], room: int) -> list[int]:
    """Widths of the label columns that fit into the room: the widest one gives way first, none below its floor."""
    widths = [max(floor, column.width(1)) for column, floor in zip(labels, floors, strict=True)]
    while total(widths) > room:
        index = max(range(len(widths)), key=lambda one: (widths[one] > floors[one], widths[one]))
        widths[index] -= 1
    return widths


def block(columns: Sequence[TableColumn], widths: Sequence[int]) -> Iterator[TableLine]:
    """A heading line or several, the last of them next to the cells, and the rows."""
    headings = [wrapped(column.heading, width) for column, width in zip(columns, widths, strict=True)]
    most = max(map(len, headings), default=0)
    raised = [[""] * (most - len(heading)) + heading for heading in headings]
    yield from (TableLine(text, heading=True) for text in side_by_side(columns, widths, raised))
    for row in zip(*(column.cells for column in columns), strict=True):
        cells = [wrapped(cell, width) for cell, width in zip(row, widths, strict=True)]
        yield from map(TableLine, side_by_side(columns, widths, cells))


def side_by_side(columns: Sequence[TableColumn], widths: Sequence[int], cells: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of cells next to each other: labels to the left of their columns, numbers to the right."""
    for parts in zip_longest(*cells, fillvalue=""):
        padded = (
            part + " " * (width - cell_len(part)) if column.label else " " * (width - cell_len(part)) + part
            for column, width, part in zip(columns, widths, parts, strict=True)
        )
        yield (" " * GAP).join(padded).rstrip()


def records(columns: Sequence[TableColumn], width: int) -> Iterator[TableLine]:
    """`heading: cell` for every cell of a row, with an empty line between rows; the headings if there is no row."""
    if not any(column.cells for column in columns):
        yield from (TableLine(text, heading=True) for column in columns for text in wrapped(column.heading, width))
    for number, row in enumerate(zip(*(column.cells for column in columns), strict=True)):
        if number:
            yield TableLine("")
        for column, cell in zip(columns, row, strict=True):
            yield from map(TableLine, wrapped(f"{column.heading}: {cell}", width))


def words_of(text: str) -> list[str]:
    """The parts of a text between which a line can be broken."""
    return WORD.findall(text)


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` characters, broken between words; a longer word has a line of its own."""
    lines: list[str] = []
    for word in words_of(text):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]
