"""Stable names of findings for tools that keep a history, and the numbers that these tools receive."""

from collections.abc import Iterable, Iterator
from itertools import chain, count
from math import isfinite
from typing import NamedTuple

from moeprof.analysis.comparison.compare import Comparison
from moeprof.analysis.comparison.verdicts import Finding
from moeprof.records.metrics.registry import METRICS
from moeprof.reporters.comparison_formats.words import one_line

WHOLE = "whole"
"""The name of an address without cells."""


class Tracked(NamedTuple):
    """One number for a tool that keeps a history."""

    finding: Finding
    value: float
    """The candidate's value."""
    interval: tuple[float, float] | None
    """The 95% interval of the value."""


def tracked(comparison: Comparison) -> Iterator[Tracked]:
    """The gated findings, with an interval if the candidate has rows `_low` and `_high`."""
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
    """The recipe and address: `lm-tiny (score, static)`."""
    return one_line(f"{finding.recipe} ({finding.where or WHOLE})")


def case_name(finding: Finding) -> str:
    """The metric and address: `throughput (score, static)`."""
    return one_line(f"{finding.metric} ({finding.where or WHOLE})")


def numbered(name: str) -> Iterator[str]:
    """The name, then the name with numbers: `a`, `a #2`, `a #3`, ..."""
    return chain([name], (f"{name} #{number}" for number in count(2)))


def distinct(names: Iterable[str]) -> list[str]:
    """The names in order, with a number after each duplicate, because readers drop one of two equal names."""
    taken: dict[str, None] = {}
    for name in names:
        taken[next(free for free in numbered(name) if free not in taken)] = None
    return list(taken)
