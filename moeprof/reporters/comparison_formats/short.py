"""A comparison on one screen: the verdict, the largest changes in one table, and the command that prints the rest."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.reporters.cells import MISSING, plural
from moeprof.reporters.comparison_formats.document import CELL, LINE
from moeprof.reporters.comparison_formats.verdict import by_size, headline, tally
from moeprof.reporters.comparison_formats.words import changed_briefly, from_to, one_line, place
from moeprof.reporters.documents.document import Bullets, Document, Heading, Paragraph, Table
from moeprof.reporters.formats.short import first_that_fits
from moeprof.reporters.formats.terminal import of_this_terminal

MOST, FEWEST = 10, 4
"""Rows of the table, if there is room; remarks are left out before rows fall below the fewest."""
INSTEAD = (
    "Settings that differ are compared by `moeprof compare --run-both RECIPE --b SECTION.KEY=VALUE`, and any runs are shown side by "
    "side by `moeprof report A B --format html`."
)
"""What to do with runs that have no gated metric in common."""


def render(comparison: Comparison) -> str:
    """As much as fits on a screen, in the colours and width of the terminal."""
    return first_that_fits(versions(comparison), of_this_terminal())


def versions(comparison: Comparison) -> Iterator[Document]:
    """The comparison with less and less, so that the caller can take the first one that fits."""
    found = largest(comparison)
    rows, remarks = min(len(found), MOST), len(comparison.remarks)
    fewest = min(rows, FEWEST)
    sizes = [(one, remarks) for one in range(rows, fewest, -1)]
    sizes += [(fewest, one) for one in range(remarks, 0, -1)]
    sizes += [(one, 0) for one in range(fewest, -1, -1)]
    for size in sizes:
        yield document(comparison, found, *size)


def document(comparison: Comparison, found: Sequence[Finding], rows: int, remarks: int) -> Document:
    """The blocks in order; whatever is left out is counted, in the last but one if there is no table."""
    title = f"moeprof compare: {one_line(comparison.candidate, LINE)} against {one_line(comparison.baseline, LINE)}"
    shown: Document = [Heading(title, 1), Paragraph(headline(comparison, named=0 if rows else 1))]
    if rows:
        left = len(found) - rows
        shown += [table(found[:rows]), *([Paragraph(f"({left} more {plural(left, 'change', 'changes')})")] if left else [])]
    lines = [one_line(remark, LINE) for remark in comparison.remarks[:remarks]]
    if left := len(comparison.remarks) - remarks:
        lines.append(f"{left} more {plural(left, 'remark', 'remarks')}")
    shown += [Bullets(lines)] if lines else []
    return [
        *shown,
        Paragraph(tally(comparison)),
        *([] if comparison.gated else [Paragraph(INSTEAD)]),
        Paragraph(rest(comparison)),
    ]


def largest(comparison: Comparison) -> list[Finding]:
    """Gated findings that are not the same: worse, better, inconclusive; of each, wholes before their parts, and the largest first."""
    return by_size(one for one in comparison.gated if one.verdict != "same")


def table(found: Sequence[Finding]) -> Table:
    """A row per finding; the recipe is named if there are several."""
    several = len({one.recipe for one in found}) > 1
    rows = [
        [
            one.verdict,
            one_line(one.metric, CELL),
            one_line(place(one) if several else one.where, CELL) or MISSING,
            from_to(one),
            changed_briefly(one),
        ]
        for one in found
    ]
    return Table(["verdict", "metric", "where", "values", "change [95%]"], rows, labels=5)


def rest(comparison: Comparison) -> str:
    """How to see all of it."""
    return f"Full comparison: `{one_line(comparison.repeat)}`" if comparison.repeat else "Full comparison: `--full`"
