"""The outcome of a comparison: one word for machines, a sentence for people, and counts of each verdict."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Literal

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.measurement import PARTS
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.reporters.cells import plural
from moeprof.reporters.comparison_formats.words import changed, one_line, place
from moeprof.reporters.documents.answers.light import load_doubt

ORDER = ("worse", "inconclusive", "better", "same", "not comparable", "removed", "new")
"""Verdicts by importance to the reader."""

NAMED = 3
"""The maximum number of metrics that the sentence names."""

Outcome = Literal["fine", "worse", "undecided"]


def outcome(comparison: Comparison) -> Outcome:
    """`worse` if any metric is, `undecided` if no metric is decided, else `fine`."""
    if comparison.of("worse"):
        return "worse"
    return "fine" if any(one.verdict != "inconclusive" for one in comparison.gated) else "undecided"


def counts(comparison: Comparison) -> dict[str, int]:
    """The number of findings per verdict; only gated ones count for verdicts that can be gated."""
    return {verdict: len(comparison.of(verdict)) for verdict in ORDER}


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """Findings by verdict, then by size of change; a change from 0 comes first."""
    return sorted(found, key=lambda one: (ORDER.index(one.verdict), -abs(inf if one.change is None else one.change)))


def by_size(found: Iterable[Finding]) -> list[Finding]:
    """Findings that are worse, then better, then undecided; of each, wholes before parts such as layers, and the largest first."""
    order = list(dict.fromkeys(("worse", "better", *ORDER)))
    return sorted(ranked(found), key=lambda one: (order.index(one.verdict), any(getattr(one.address, part) for part in PARTS)))


def headline(comparison: Comparison, named: int = NAMED) -> str:
    """The sentence; after a busy machine, if any time is compared."""
    timed = any(one.kind == "timed" for one in comparison.gated)
    return " ".join([*(load_doubt(comparison.machine_load) if timed else ()), sentence(comparison, named)])


def sentence(comparison: Comparison, named: int = NAMED) -> str:
    """The outcome, what got worse first: `2 of 14 gated metrics got worse: throughput (lm-tiny, score, static) -12.3%, ...`.

    At most `named` metrics are named.
    """
    number = f"{len(comparison.gated)} gated metric{'' if len(comparison.gated) == 1 else 's'}"
    match outcome(comparison):
        case "worse":
            worse = ranked(comparison.of("worse"))
            names = [f"{one_line(one.metric)} ({place(one)}) {changed(one)}" for one in worse[:named]]
            more = f" and {len(worse) - named} more" if len(worse) > named else ""
            which = f": {', '.join(names)}{more}" if names else ""
            return f"{len(worse)} of {number} got worse{which}.{undecided_sentence(comparison)}"
        case "undecided" if comparison.gated:
            return f"Nothing was decided: {number}, all inconclusive: {why_inconclusive(comparison)}."
        case "undecided":
            return f"Nothing is comparable: {main_reason(comparison, 'not comparable')}."
        case "fine":
            return f"None of {number} got worse.{undecided_sentence(comparison)}"


def undecided_sentence(comparison: Comparison) -> str:
    """` 28 are undecided: 1 process per side; at least 3 are needed to judge speed.`, or nothing if all are decided."""
    number = len(comparison.of("inconclusive"))
    return f" {number} {plural(number, 'is', 'are')} undecided: {why_inconclusive(comparison)}." if number else ""


def why_inconclusive(comparison: Comparison) -> str:
    """The most frequent reason why a gated metric is not decided."""
    return main_reason(comparison, "inconclusive", "the rounds do not show a difference")


def main_reason(comparison: Comparison, verdict: str, otherwise: str = "the two have no gated metric in common") -> str:
    """The most frequent reason for a verdict."""
    reasons = Counter(one.why for one in comparison.of(verdict) if one.why)
    return one_line(reasons.most_common(1)[0][0]) if reasons else otherwise


def tally(comparison: Comparison) -> str:
    """Counts of the verdicts that occur: `Worse: 2, better: 1, same: 11, new: 4.`"""
    shown = ", ".join(f"{verdict}: {count}" for verdict, count in counts(comparison).items() if count)
    return f"{shown[0].upper()}{shown[1:]}." if shown else "No metrics."
