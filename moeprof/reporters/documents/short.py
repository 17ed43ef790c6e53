"""The report on one screen: the verdict, a table of key numbers, a bar, and where the full report is."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from moeprof.records.run.run import Run
from moeprof.reporters.documents.answer import KeyNumber, Light, RunAnswer
from moeprof.reporters.documents.document import Block, Bullets, Document, Heading, Paragraph, Stacked, Table
from moeprof.reporters.documents.report import answer_to, metrics_of, timeline_block
from moeprof.reporters.layout import lines_of
from moeprof.reporters.sections.bars import bars_of

DOUBTS = {"good": "Reliable", "doubtful": "Doubtful", "bad": "Not reliable"}
"""The light in words."""


@dataclass(frozen=True)
class Shown:
    """How much of an answer a report shows."""

    changes: int
    bars: int
    reasons: int
    numbers: int


def versions(run: Run, width: int) -> Iterator[Document]:
    """The report for a terminal of a width, whole and then with less and less, so that the caller can take the first one that fits."""
    answer, bars = answer_to(run), list(bars_of(metrics_of(run)))
    whole = Shown(len(answer.would_change), len(bars), len(answer.light.reasons), len(answer.numbers))
    for shown in less_and_less(whole, numbers_first=answer.compares):
        yield document(run, answer, bars, shown, width)


def less_and_less(whole: Shown, *, numbers_first: bool = False) -> Iterator[Shown]:
    """What goes first: further bars, what would change the answer, further reasons; last the numbers and the bar.

    `numbers_first`: numbers are shown rather than the bar.
    """
    yield whole
    for bars in reversed(range(1, whole.bars)):
        yield (whole := replace(whole, bars=bars))
    for changes in reversed(range(whole.changes)):
        yield (whole := replace(whole, changes=changes))
    for reasons in reversed(range(1, whole.reasons)):
        yield (whole := replace(whole, reasons=reasons))
    if numbers_first:
        yield (whole := replace(whole, bars=0))
    for numbers in reversed(range(1, whole.numbers)):
        yield (whole := replace(whole, numbers=numbers))
    yield replace(whole, bars=0)
    yield Shown(0, 0, 0, 0)


def document(run: Run, answer: RunAnswer, bars: Sequence[Stacked], shown: Shown, width: int) -> Document:
    """The blocks in order; a reason for doubt is first."""
    blocks: list[Block] = [Heading(f"moeprof {run.record.command}: {run.record.name}", 1)]
    light = list(light_blocks(answer.light, shown.reasons))
    doubtful = answer.light.level != "good"
    blocks += [*(light if doubtful else []), Paragraph(answer.sentence), *([] if doubtful else light)]
    if numbers := answer.numbers[: shown.numbers]:
        blocks.append(number_table(numbers, len(answer.numbers) - len(numbers), width))
    blocks += bars[: shown.bars]
    if changes := answer.would_change[: shown.changes]:
        blocks += [Paragraph("What would change it:"), Bullets(changes)]
    if answer.commands:
        blocks += [Paragraph(f"Trace: {in_one_piece(str(run.path / 'routing'))}. Next:"), Bullets(answer.commands)]
    return [*blocks, *timeline_block(run), Paragraph(where(run))]


def light_blocks(light: Light, most: int) -> Iterator[Block]:
    """Whether the numbers can be relied on, with the first reasons; nothing if there are none."""
    if reasons := light.reasons[:most]:
        more = len(light.reasons) - len(reasons)
        yield Paragraph(f"{DOUBTS[light.level]}: {' '.join(reasons)}{f' ({more} more)' if more else ''}")


def number_table(numbers: Sequence[KeyNumber], left: int, width: int) -> Table:
    """A row per number, and how many are `left` out; intervals have a column of their own if that takes no further line."""
    with_column, without = (table_of(numbers, left, spreads=spreads) for spreads in (True, False))
    return with_column if len(lines_of(with_column, width)) <= len(lines_of(without, width)) else without


def table_of(numbers: Sequence[KeyNumber], left: int, *, spreads: bool) -> Table:
    """The table with or without a column of intervals; columns without any cell are omitted."""
    cells = {
        "key number": [*(one.name for one in numbers), *([f"({left} more)"] if left else [])],
        "value": [one.write(one.value) for one in numbers],
        "95% interval": [interval(one) if spreads else "" for one in numbers],
        "beside it": [beside(one, spread=not spreads) for one in numbers],
    }
    used = {title: found for title, found in cells.items() if any(found)}
    return Table(list(used), list(zip_longest(*used.values(), fillvalue="")), labels=len(used))


def interval(number: KeyNumber) -> str:
    """`5.44x to 6.32x`; empty without an interval."""
    return "" if number.low is None or number.high is None else f"{number.write(number.low)} to {number.write(number.high)}"


def beside(number: KeyNumber, *, spread: bool) -> str:
    """All that the number is to be read beside: its interval (if `spread`), its remark, and its bound with its name."""
    found = interval(number)
    bound = f"{number.bound[0]}: {number.write(number.bound[1])}" if number.bound else ""
    return "; ".join(filter(None, (f"95%: {found}" if found and spread else "", number.remark, bound)))


def where(run: Run) -> str:
    """The path of the page, or the command that prints the report if the run has no page."""
    page = run.path / "report.html"
    if page.is_file():
        return f"Full report: {in_one_piece(str(page))}"
    return f"Full report: {in_one_piece(shlex.join(['moeprof', 'report', str(run.path), '--full']))}"


def in_one_piece(text: str) -> str:
    """A path or command in which no line is broken: in backticks if it has blanks."""
    return f"`{text}`" if " " in text else text
