"""The report on one screen: the verdict, a table of key numbers, a bar, and where the full report is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from moeprof.records.run.run import Run
from moeprof.reporters.documents.answer import KeyNumber, Light, RunAnswer
from moeprof.reporters.documents.document import Block, Bullets, Document, Heading, Paragraph, Stacked, Table
from moeprof.reporters.documents.report import answer_to, metrics_of, timeline_block
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
    both: bool = True
    """Whether a number that has a bound and a remark is shown with both."""


def versions(run: Run) -> Iterator[Document]:
    """The report, whole and then with less and less, so that the caller can take the first one that fits."""
    answer, bars = answer_to(run), list(bars_of(metrics_of(run)))
    whole = Shown(len(answer.would_change), len(bars), len(answer.light.reasons), len(answer.numbers))
    for shown in less_and_less(whole):
        yield document(run, answer, bars, shown)


def less_and_less(whole: Shown) -> Iterator[Shown]:
    """What goes first: second remarks, further bars, what would change the answer, further reasons; last the numbers and the bar."""
    yield whole
    yield (whole := replace(whole, both=False))
    for bars in reversed(range(1, whole.bars)):
        yield (whole := replace(whole, bars=bars))
    for changes in reversed(range(whole.changes)):
        yield (whole := replace(whole, changes=changes))
    for reasons in reversed(range(1, whole.reasons)):
        yield (whole := replace(whole, reasons=reasons))
    for numbers in reversed(range(1, whole.numbers)):
        yield (whole := replace(whole, numbers=numbers))
    yield replace(whole, bars=0)
    yield Shown(0, 0, 0, 0)


def document(run: Run, answer: RunAnswer, bars: Sequence[Stacked], shown: Shown) -> Document:
    """The blocks in order; a reason for doubt is first."""
    blocks: list[Block] = [Heading(f"moeprof {run.record.command}: {run.record.name}", 1)]
    light = list(light_blocks(answer.light, shown.reasons))
    doubtful = answer.light.level != "good"
    blocks += [*(light if doubtful else []), Paragraph(answer.sentence), *([] if doubtful else light)]
    if numbers := answer.numbers[: shown.numbers]:
        blocks.append(number_table(numbers, both=shown.both))
    blocks += bars[: shown.bars]
    if changes := answer.would_change[: shown.changes]:
        blocks += [Paragraph("What would change it:"), Bullets(changes)]
    return [*blocks, *timeline_block(run), Paragraph(where(run))]


def light_blocks(light: Light, most: int) -> Iterator[Block]:
    """Whether the numbers can be relied on, with the first reasons; nothing if there are none."""
    if reasons := light.reasons[:most]:
        more = len(light.reasons) - len(reasons)
        yield Paragraph(f"{DOUBTS[light.level]}: {' '.join(reasons)}{f' ({more} more)' if more else ''}")


def number_table(numbers: Sequence[KeyNumber], *, both: bool) -> Table:
    """A row per number; columns without any cell are left out."""
    columns = {
        "key number": [one.name for one in numbers],
        "value": [one.write(one.value) for one in numbers],
        "95% interval": [interval(one) if both else "" for one in numbers],
        "beside it": [beside(one, both=both) for one in numbers],
    }
    used = {title: cells for title, cells in columns.items() if any(cells)}
    return Table(list(used), list(zip(*used.values(), strict=True)), labels=len(used))


def interval(number: KeyNumber) -> str:
    """`5.44x to 6.32x`; empty without an interval."""
    return "" if number.low is None or number.high is None else f"{number.write(number.low)} to {number.write(number.high)}"


def beside(number: KeyNumber, *, both: bool) -> str:
    """The remark and the bound with its name; or one thing to read the number beside: its interval, its remark or its bound."""
    bound = f"{number.bound[0]}: {number.write(number.bound[1])}" if number.bound else ""
    if both:
        return "; ".join(filter(None, (number.remark, bound)))
    spread = interval(number)
    return f"95%: {spread}" if spread else number.remark or bound


def where(run: Run) -> str:
    """The path of the page, or the command that prints the report if the run has no page."""
    page = run.path / "report.html"
    return f"Full report: {page if page.is_file() else f'moeprof report {run.path} --full'}"
