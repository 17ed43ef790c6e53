"""A comparison for a terminal of any width."""

from rich.cells import cell_len
from rich.console import Console

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.cells import MISSING
from moeprof.reporters.comparison_formats.document import document_of
from moeprof.reporters.documents.document import Block, Bullets, Details, Document, Paragraph, Table
from moeprof.reporters.formats.terminal import of_this_terminal, render_document

GAP = 2
"""Characters between two columns."""


def render(comparison: Comparison) -> str:
    """The document in the colours and width of the terminal."""
    return rendered(comparison, of_this_terminal())


def rendered(comparison: Comparison, like: Console) -> str:
    """The text that the console `like` would show."""
    return render_document(fitted(document_of(comparison), like.width), like)


def fitted(document: Document, width: int) -> Document:
    """The document without tables wider than the terminal; folded blocks become a hint."""

    def block_of(block: Block) -> Block:
        match block:
            case Details(title):
                return Paragraph(f"{title} hidden; `--format markdown` lists them.")
            case Table() if width_of(block) > width:
                return in_lines(block)
        return block

    return [block_of(block) for block in document]


def width_of(table: Table) -> int:
    """The width of a table without wrapping."""
    columns = zip(table.columns, *table.rows, strict=True)
    return sum(max(map(cell_len, column)) + GAP for column in columns)


def in_lines(table: Table) -> Bullets:
    """Rows as lines that may wrap: `worse, lm-tiny, score, static, throughput: baseline 1,000 tokens/s, ...`."""
    lines = []
    for row in table.rows:
        labels = ", ".join(cell for cell in row[: table.labels] if cell != MISSING)
        named = zip(table.columns[table.labels :], row[table.labels :], strict=True)
        lines.append(f"{labels}: {', '.join(f'{name} {cell}' for name, cell in named if cell not in ('', MISSING))}")
    return Bullets([*lines, table.caption] if table.caption else lines)
