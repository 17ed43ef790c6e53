"""What a comparison comes to: a word for machines, a sentence for people, and how many of each verdict."""

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import Literal

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.reporters.comparison_formats.words import changed, one_line, place

ORDER = ("worse", "inconclusive", "better", "same", "not comparable", "removed", "new")
"""What a reader wants to see first."""

NAMED = 3
"""Metrics that the sentence names."""

Word = Literal["fine", "worse", "undecided"]


def word(comparison: Comparison) -> Word:
    """`worse`, `undecided` where nothing was decided, else `fine`."""
    if comparison.of("worse"):
        return "worse"
    return "fine" if any(one.verdict != "inconclusive" for one in comparison.gated) else "undecided"


def counts(comparison: Comparison) -> dict[str, int]:
    """How many findings have each verdict; of those that can be gated, the gated ones."""
    return {verdict: len(comparison.of(verdict)) for verdict in ORDER}


def ranked(found: Iterable[Finding]) -> list[Finding]:
    """By verdict, then the largest change first; one from 0 is larger than any."""
    return sorted(found, key=lambda one: (ORDER.index(one.verdict), -abs(inf if one.change is None else one.change)))


def sentence(comparison: Comparison) -> str:
    """`2 of 14 gated metrics got worse: throughput (lm-tiny, score, static) -12.3%, ...`."""
    number = f"{len(comparison.gated)} gated metric{'' if len(comparison.gated) == 1 else 's'}"
    match word(comparison):
        case "worse":
            worse = ranked(comparison.of("worse"))
            named = [f"{one_line(one.metric)} ({place(one)}) {changed(one)}" for one in worse[:NAMED]]
            more = f" and {len(worse) - NAMED} more" if len(worse) > NAMED else ""
            return f"{len(worse)} of {number} got worse: {', '.join(named)}{more}."
        case "undecided" if comparison.gated:
            return f"Nothing could be decided: of {number}, all are inconclusive."
        case "undecided":
            return f"Nothing could be compared: {obstacle(comparison)}."
        case "fine":
            return f"None of {number} got worse."


def obstacle(comparison: Comparison) -> str:
    """The reason that most numbers have."""
    reasons = Counter(one.why for one in comparison.of("not comparable") if one.why)
    return one_line(reasons.most_common(1)[0][0]) if reasons else "the two have no gated metric in common"


def tally(comparison: Comparison) -> str:
    """`Worse: 2, better: 1, same: 11, new: 4.`, nothing that does not occur."""
    shown = ", ".join(f"{verdict}: {count}" for verdict, count in counts(comparison).items() if count)
    return f"{shown[0].upper()}{shown[1:]}." if shown else "No metrics."
