"""The history of recipes: on one screen, whole, as a page with a figure, or as JSON."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from moeprof.analysis.comparison.history import HistoryEntry, RunHistory
from moeprof.analysis.comparison.measurement import Number
from moeprof.records.metrics.row import RowKey
from moeprof.reporters.cells import MISSING, plural, rate
from moeprof.reporters.comparison_formats import json as comparison_json
from moeprof.reporters.comparison_formats.document import CELL, LINE
from moeprof.reporters.comparison_formats.verdict import by_size
from moeprof.reporters.comparison_formats.words import changed, one_line
from moeprof.reporters.documents.document import Document, Heading, Paragraph, Table
from moeprof.reporters.formats.markdown import render_document as markdown
from moeprof.reporters.formats.short import first_that_fits
from moeprof.reporters.formats.terminal import of_this_terminal, render_document
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Figure, FileSource, Series, View
from moeprof.reporters.page.page import render_document as page

FORMATS = ("short", "terminal", "markdown", "html", "json")

FEWEST = 2
"""Rows of a history that are shown if there is little room; the newest are the last to be left out."""

SAMPLES = FileSource(
    "metrics.csv and rounds.parquet of every run", "throughput; the quartiles of tokens / time_ns over its rounds"
)

CAPTION = (
    "The oldest run is the first. Throughput in tokens/s, with the quartiles of its rounds. w/b/u: gated metrics that got worse, better or "
    "are undecided beside the run before, as `moeprof compare` decides; the largest change is that of one that got worse, if there is one."
)
SHORT_CAPTION = "Tokens/s with quartiles of the rounds; w/b/u: gated metrics that got worse, better, or are undecided."


def render(found: Sequence[RunHistory], form: str) -> str:
    """All histories in one of FORMATS."""
    match form:
        case "json":
            return json.dumps([entries_of(one) for one in found], indent=1, allow_nan=False) + "\n"
        case "html":
            return page([Heading("moeprof history", 1), *(block for one in found for block in page_of(one))])
        case "short":
            like = of_this_terminal()
            return "".join(first_that_fits(shorter(one), like) for one in found)
        case "terminal":
            return render_document([block for one in found for block in document(one)], of_this_terminal())
    return markdown([block for one in found for block in document(one)])


def shorter(history: RunHistory) -> Iterator[Document]:
    """The history with fewer and fewer of its older entries, so that the caller can take the first one that fits."""
    for rows in range(len(history.entries), FEWEST - 1, -1):
        yield document(history, rows, brief=True)


def document(history: RunHistory, rows: int | None = None, *, brief: bool = False) -> Document:
    """Title, verdict and table; of the table the last `rows` rows."""
    title = f"moeprof history: {one_line(history.recipe, LINE)} ({one_line(history.command)})"
    shown = history.entries[-rows:] if rows else history.entries
    left = len(history.entries) - len(shown)
    note = f" {left} older {plural(left, 'run is', 'runs are')} left out; `--full` shows all." if left else ""
    return [Heading(title, 1), Paragraph(verdict(history)), table(history, shown, SHORT_CAPTION + note if brief else CAPTION)]


def verdict(history: RunHistory) -> str:
    """In which runs something got worse, the newest first, or that nothing did; then what is undecided, and why."""
    steps = history.entries[1:]
    worse = [one for one in reversed(steps) if one.comparison is not None and one.comparison.of("worse")]
    better = sum(1 for one in steps if one.comparison is not None and one.comparison.of("better"))
    count = f"{len(history.entries)} runs from {day(history.entries[0])} to {day(history.entries[-1])}"
    if worse:
        last = one_line(worse[0].name, CELL)
        found = f"something got worse in {len(worse)} of {len(steps)} steps, the last time in {last}: {largest(worse[0])}."
    else:
        found = f"nothing that is decided got worse, and something got better in {better} of {len(steps)} steps."
    return " ".join([f"{count}: {found}", *undecided(steps)])


def undecided(steps: Sequence[HistoryEntry]) -> Iterator[str]:
    """In how many steps a gated metric is undecided, and why most of them are."""
    found = [one.comparison.of("inconclusive") for one in steps if one.comparison is not None]
    why = Counter(one.why for each in found for one in each)
    if why:
        yield f"Undecided in {sum(map(bool, found))} of {len(steps)} steps: {one_line(why.most_common(1)[0][0], LINE)}."


def day(entry: HistoryEntry) -> str:
    """The date and the minute at which a run began, in UTC."""
    return one_line(entry.started[:16].replace("T", " "), CELL)


def table(history: RunHistory, entries: Sequence[HistoryEntry], caption: str) -> Table:
    """A row per entry, with the throughput of the first variant in every phase."""
    first = firsts(history.followed)
    columns = ["run", "began", *(one_line(f"{one.phase}, {one.variant}", CELL) for one in first), "w/b/u", "largest change"]
    rows = []
    for entry in entries:
        speeds = [speed(entry.measurement.by_address[address]) for address in first]
        rows.append([one_line(entry.name, CELL), day(entry), *speeds, counts(entry), largest(entry)])
    return Table(columns, rows, labels=2, caption=caption)


def firsts(addresses: Sequence[RowKey]) -> list[RowKey]:
    """The first address of every phase."""
    found: dict[str, RowKey] = {}
    for one in addresses:
        found.setdefault(one.phase, one)
    return list(found.values())


def speed(number: Number) -> str:
    """A throughput with its quartiles: `1,234 [1,201-1,260]`."""
    low, high = quartiles(number)
    return f"{rate(number.value)} [{rate(low)}-{rate(high)}]" if number.samples else rate(number.value)


def quartiles(number: Number) -> tuple[float, float]:
    """Of the rounds of all processes; twice the value if none are known."""
    rounds = [one for process in number.samples for one in process]
    low, high = np.percentile(rounds, [25, 75]) if rounds else (number.value, number.value)
    return float(low), float(high)


def counts(entry: HistoryEntry) -> str:
    """How many gated metrics got worse, better, and are undecided: `1/0/2`; nothing for the first entry."""
    if entry.comparison is None:
        return MISSING
    return "/".join(str(len(entry.comparison.of(kind))) for kind in ("worse", "better", "inconclusive"))


def largest(entry: HistoryEntry) -> str:
    """The largest change beside the run before: of what got worse, otherwise of what got better."""
    if entry.comparison is None:
        return MISSING
    found = by_size([*entry.comparison.of("worse"), *entry.comparison.of("better")])
    return one_line(f"{found[0].metric} ({found[0].where}) {changed(found[0])}", 2 * CELL) if found else "none"


def page_of(history: RunHistory) -> Iterator[PageBlock]:
    """Heading, verdict, figure and table."""
    _, said, rows = document(history)
    yield Heading(f"{one_line(history.recipe, LINE)} ({one_line(history.command)})", 2)
    yield said
    if history.followed:
        yield figure(history)
    yield rows


def figure(history: RunHistory) -> Figure:
    """The throughput of every run, by phase and variant."""
    names = [one_line(entry.name, CELL) for entry in history.entries]
    return Figure(
        f"history-{history.recipe}-{history.command}",
        "Throughput of every run",
        "Throughput in the order of the runs; the band shows the quartiles of the rounds.",
        Axis("run"),
        Axis("throughput", "tokens/s"),
        [View({"phase": one.phase, "variant": one.variant}, [series(history, one, names)]) for one in history.followed],
    )


def series(history: RunHistory, address: RowKey, names: Sequence[str]) -> Series:
    """The numbers of every entry at one address, with what the comparison says of each."""
    numbers = history.values(address)
    ends = [quartiles(one) for one in numbers]
    return Series(
        address.variant,
        list(names),
        [one.value for one in numbers],
        "line",
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
        remarks=[remark(entry, address) for entry in history.entries],
        source=SAMPLES,
    )


def remark(entry: HistoryEntry, address: RowKey) -> str:
    """When the run began, and how this number compares with the run before."""
    found = () if entry.comparison is None else [one for one in entry.comparison.findings if one.address == address]
    return ", ".join([day(entry), *(f"{one.verdict} {changed(one)}" for one in found)])


def entries_of(history: RunHistory) -> dict[str, object]:
    """The history as a JSON document; `comparison` is that of `moeprof compare --json` with the run before."""
    return {
        "recipe": history.recipe,
        "command": history.command,
        "entries": [
            {
                "name": one.name,
                "started": one.started,
                "throughput": [throughput_of(one, address) for address in history.followed],
                "comparison": None if one.comparison is None else comparison_json.document(one.comparison),
            }
            for one in history.entries
        ],
    }


def throughput_of(entry: HistoryEntry, address: RowKey) -> dict[str, object]:
    """One throughput with the quartiles of its rounds."""
    number = entry.measurement.by_address[address]
    low, high = quartiles(number)
    return {"phase": address.phase, "variant": address.variant, "value": number.value, "low": low, "high": high}
