"""A comparison as a page: the verdict, the sorted differences with their intervals, then every table."""

import math
from collections.abc import Iterator, Sequence

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.reporters.comparison_formats.document import CELL, CHANGE_OVER_ROUNDS, LINE, document_of
from moeprof.reporters.comparison_formats.verdict import ORDER, ranked
from moeprof.reporters.comparison_formats.words import amounts, one_line, place
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Colour, Figure, FileSource, Series, View
from moeprof.reporters.page.page import render_document

MOST = 60
"""Differences in the figure; those that matter most come first."""

COLOURS: dict[str, Colour] = {"worse": 1, "inconclusive": "muted", "better": 2}
CHANGE = FileSource("metrics.csv and samples.parquet of both runs", f"with an interval {CHANGE_OVER_ROUNDS}; else of the rows")


def render(comparison: Comparison) -> str:
    """The comparison as one self-contained page."""
    title, verdict, counted, *tables = document_of(comparison)
    return render_document([title, verdict, counted, *figures(comparison), *tables])


def figures(comparison: Comparison) -> Iterator[PageBlock]:
    """The figure of differences; none if nothing can be compared as a ratio."""
    changed = (
        one for one in comparison.gated if one.verdict != "same" and one.change is not None and math.isfinite(one.change)
    )
    found = ranked(changed)
    shown, left = found[:MOST], len(found) - MOST
    names = names_of(shown)
    if shown:
        yield Figure(
            "changes",
            "Differences, what got worse first",
            "The relative change of every gated metric that is not the same, sorted by verdict and size; whiskers are 95% intervals.",
            Axis("metric"),
            Axis("change of the candidate", "fraction"),
            [View(series=[series for verdict in ORDER if (series := of_verdict(verdict, shown, names)).values])],
            horizontal=True,
            caption=f"The first {MOST} of {len(found)}; the tables have the others." if left > 0 else "",
        )


def names_of(found: Sequence[Finding]) -> list[str]:
    """The metric and address of every finding, cut to the width of a cell."""
    return [one_line(f"{one.metric} ({place(one)})", CELL + LINE // 10) for one in found]


def of_verdict(verdict: str, found: Sequence[Finding], names: Sequence[str]) -> Series:
    """The findings with a verdict; one without an interval has its value at both ends."""
    mine = [
        (name, one, one.change)
        for name, one in zip(names, found, strict=True)
        if one.verdict == verdict and one.change is not None
    ]
    ends = [interval_of(one, change) for _, one, change in mine]
    return Series(
        verdict,
        [name for name, _, _ in mine],
        [change for _, _, change in mine],
        "dots",
        low=[low for low, _ in ends],
        high=[high for _, high in ends],
        remarks=[" to ".join(amounts(one)) for _, one, _ in mine],
        colour=COLOURS.get(verdict, "muted"),
        source=CHANGE,
    )


def interval_of(finding: Finding, change: float) -> tuple[float, float]:
    """The interval of a change, if both of its ends are numbers."""
    known = finding.interval is not None and all(map(math.isfinite, finding.interval))
    return finding.interval if known and finding.interval else (change, change)
