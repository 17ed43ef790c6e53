"""A comparison as a document: the verdict, what changed, and everything else folded or counted."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.metrics.number import Elsewhere, RecordedNumber, cells_of
from moeprof.reporters.cells import MISSING, CellText
from moeprof.reporters.comparison_formats.verdict import headline, ranked, tally
from moeprof.reporters.comparison_formats.words import amounts, chance, changed, note, one_line
from moeprof.reporters.documents.document import Block, Bullets, Details, Document, Heading, Paragraph, Table

COLUMNS = ("verdict", "recipe", "where", "metric", "baseline", "candidate", "change [95%]", "p", "note")
LABELS = 4
"""The number of columns that identify a row; these are always shown."""

CELL, LINE = 60, 240
"""Maximum characters of a cell and of a line: names come from files, and a long cell widens its whole column."""

ROWS, GROUPS, METRICS_SHOWN = 100, 12, 6
"""Maximum numbers of rows in an unfolded table, of reasons in a list, and of metrics per reason."""


CHANGE_OVER_ROUNDS = (
    "candidate / baseline - 1 of medians over rounds (paired rounds: median of their ratios), geometric mean over processes"
)
"""How a change with an interval follows from the rounds of both sides."""


def document_of(comparison: Comparison) -> Document:
    """All blocks of a comparison that are not empty."""
    title = f"{one_line(comparison.candidate, LINE)} against {one_line(comparison.baseline, LINE)}"
    document: Document = [Heading(title, 1), Paragraph(headline(comparison)), Paragraph(tally(comparison))]
    if comparison.remarks:
        document.append(Bullets([one_line(remark, LINE) for remark in comparison.remarks]))
    document += decided(comparison)
    same = [one for one in comparison.findings if one.verdict == "same"]
    described = [one for one in comparison.findings if one.verdict == "inconclusive" and not one.gated]
    document += folded(f"{len(same)} unchanged metrics", same)
    document += folded(f"{len(described)} timed metrics without a gate", described)
    for verdict in ("not comparable", "removed", "new"):
        document += listed(verdict, comparison.of(verdict))
    return document


def decided(comparison: Comparison) -> Iterator[Block]:
    """A table of the gated findings that are not `same`."""
    found = ranked(one for one in comparison.gated if one.verdict != "same")
    if found:
        left_out = len(found) - ROWS
        yield table(found[:ROWS], f"{left_out} more rows; `--format json` lists all." if left_out > 0 else "")


def folded(title: str, found: Sequence[Finding]) -> Iterator[Block]:
    """A folded table; its title contains no text from files, because it is not escaped inside HTML."""
    if found:
        yield Details(title, [table(ranked(found))])


def table(found: Sequence[Finding], caption: str = "") -> Table:
    """A row per finding; empty columns are omitted."""
    rows = [cells(one) for one in found]
    kept = [index for index in range(len(COLUMNS)) if index < LABELS or any(row[index] not in ("", MISSING) for row in rows)]
    return Table([COLUMNS[index] for index in kept], [[row[index] for index in kept] for row in rows], LABELS, caption)


def cells(finding: Finding) -> list[str]:
    """The cells of a finding in the order of COLUMNS; those of numbers have origins."""
    labels = (finding.verdict, finding.recipe, finding.where or MISSING, finding.metric)
    texts = (*labels, *amounts(finding), changed(finding), chance(finding.p), note(finding))
    numbers = dict(zip(COLUMNS[LABELS:], numbers_of(finding), strict=False))
    return [
        text if (number := numbers.get(name)) is None else CellText(text, float(number), number.origin)
        for name, text in zip(COLUMNS, (one_line(text, CELL) for text in texts), strict=True)
    ]


def numbers_of(finding: Finding) -> tuple[RecordedNumber | None, ...]:
    """The baseline, the candidate and the change with their origins: a row of each side, and a formula over rows or rounds."""
    named = {"recipe": finding.recipe} | cells_of(finding.address)
    place = tuple((name, one_line(cell)) for name, cell in named.items())
    before, after = (
        None if value is None or not math.isfinite(value) else RecordedNumber(value, Elsewhere((("side", side), *place)))
        for side, value in (("baseline", finding.baseline), ("candidate", finding.candidate))
    )
    if finding.change is None or not math.isfinite(finding.change):
        return before, after, None
    if finding.interval is None and before and after is not None:
        return before, after, after / before - 1.0
    rounds = Elsewhere((("side", "both"), ("formula", CHANGE_OVER_ROUNDS), *place))
    return before, after, RecordedNumber(finding.change, rounds)


def listed(verdict: str, found: Sequence[Finding]) -> Iterator[Block]:
    """A line per reason, or per recipe if the verdict needs no reason."""
    if not found:
        return
    groups: dict[str, Counter[str]] = {}
    for one in found:
        groups.setdefault(one.why or one.recipe, Counter())[one.metric] += 1
    largest = sorted(groups.items(), key=lambda group: -group[1].total())
    lines = [f"{metrics.total()} x {one_line(why, LINE)}: {most_common(metrics)}" for why, metrics in largest[:GROUPS]]
    if more := largest[GROUPS:]:
        lines.append(f"{sum(metrics.total() for _, metrics in more)} more for {len(more)} other reasons")
    yield Heading(f"{verdict[0].upper()}{verdict[1:]}: {len(found)}")
    yield Bullets(lines)


def most_common(metrics: Counter[str]) -> str:
    """The most frequent metrics: `region_time (24), step_latency (2) and 3 more`."""
    shown = ", ".join(f"{one_line(name, CELL)} ({count})" for name, count in metrics.most_common(METRICS_SHOWN))
    return shown + (f" and {len(metrics) - METRICS_SHOWN} more" if len(metrics) > METRICS_SHOWN else "")
