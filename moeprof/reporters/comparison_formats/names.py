"""The names under which other tools file a number from one comparison to the next, and the numbers they are given."""

from collections.abc import Iterable, Iterator
from itertools import chain, count
from math import isfinite
from typing import NamedTuple

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.metrics.registry import METRICS
from moeprof.reporters.comparison_formats.words import one_line

WHOLE = "whole"
"""What stands for an address without cells."""


class Tracked(NamedTuple):
    """What a tool that keeps a history is given."""

    finding: Finding
    value: float
    """The candidate's."""
    interval: tuple[float, float] | None
    """Its 95% interval."""


def tracked(comparison: Comparison) -> Iterator[Tracked]:
    """The gated findings; an interval where the candidate's `_low` and `_high` stand beside them."""
    ends = {}
    for one in comparison.findings:
        if one.metric.endswith(("_low", "_high")) and one.candidate is not None and isfinite(one.candidate):
            ends[one.recipe, one.command, one.address] = one.candidate
    for one in comparison.gated:
        if one.metric in METRICS and one.candidate is not None and isfinite(one.candidate):
            keys = (one.address._replace(metric=f"{one.metric}_{end}") for end in ("low", "high"))
            low, high = (ends.get((one.recipe, one.command, key)) for key in keys)
            yield Tracked(one, one.candidate, None if low is None or high is None else (low, high))


def place_name(finding: Finding) -> str:
    """`lm-tiny (score, static)`."""
    return one_line(f"{finding.recipe} ({finding.where or WHOLE})")


def case_name(finding: Finding) -> str:
    """`throughput (score, static)`."""
    return one_line(f"{finding.metric} ({finding.where or WHOLE})")


def numbered(name: str) -> Iterator[str]:
    """`a`, `a #2`, `a #3`, ..."""
    return chain([name], (f"{name} #{number}" for number in count(2)))


def distinct(names: Iterable[str]) -> list[str]:
    """The same names in the same order, a number behind each that was there before: readers drop one of two namesakes."""
    told: dict[str, None] = {}
    for name in names:
        told[next(free for free in numbered(name) if free not in told)] = None
    return list(told)
