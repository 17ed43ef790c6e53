"""The candidate's gated values for github-action-benchmark, whose files have one direction each."""

import json
from typing import Any

from moeprof.analysis.comparison.compare import Comparison
from moeprof.records.metrics.metric import Better
from moeprof.records.metrics.registry import METRICS
from moeprof.reporters.comparison_formats.names import Tracked, distinct, place_name, tracked
from moeprof.reporters.comparison_formats.words import amount, one_line, told


def bigger(comparison: Comparison) -> str:
    """For `tool: customBiggerIsBetter`: throughput and its like."""
    return entries(comparison, "higher")


def smaller(comparison: Comparison) -> str:
    """For `tool: customSmallerIsBetter`: memory, waste, drops."""
    return entries(comparison, "lower")


def entries(comparison: Comparison, better: Better) -> str:
    """A JSON array; the tool refuses an empty one, as it should where nothing was compared."""
    found = [one for one in tracked(comparison) if METRICS[one.finding.metric].better == better]
    names = distinct(f"{place_name(one.finding)}: {one_line(one.finding.metric)}" for one in found)
    array = [entry(name, one) for name, one in zip(names, found, strict=True)]
    return json.dumps(array, indent=1, allow_nan=False) + "\n"


def entry(name: str, tracked: Tracked) -> dict[str, Any]:
    """`range` and `extra` are text that the tool shows beside the value."""
    finding, value, interval = tracked
    document: dict[str, Any] = {"name": name, "unit": one_line(finding.unit), "value": value}
    if interval:
        low, high = (amount(end, finding.unit) for end in interval)
        document["range"] = f"95% interval {low} to {high}"
    return {**document, "extra": f"{finding.verdict}: {told(finding)}"}
