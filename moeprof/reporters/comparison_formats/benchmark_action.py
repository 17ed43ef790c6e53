"""The candidate's gated values for github-action-benchmark, which needs one file per direction of improvement."""

import json
from typing import Any

from moeprof.analysis.comparison.compare import Comparison
from moeprof.records.metrics.metric import Better
from moeprof.records.metrics.registry import METRICS
from moeprof.reporters.comparison_formats.names import Tracked, distinct, place_name, tracked
from moeprof.reporters.comparison_formats.words import amount, described, one_line


def bigger(comparison: Comparison) -> str:
    """Metrics for `tool: customBiggerIsBetter`, such as throughput."""
    return entries(comparison, "higher")


def smaller(comparison: Comparison) -> str:
    """Metrics for `tool: customSmallerIsBetter`, such as memory, waste and drops."""
    return entries(comparison, "lower")


def entries(comparison: Comparison, better: Better) -> str:
    """A JSON array; the tool rejects an empty one, so a comparison without results fails."""
    found = [one for one in tracked(comparison) if METRICS[one.finding.metric].better == better]
    names = distinct(f"{place_name(one.finding)}: {one_line(one.finding.metric)}" for one in found)
    array = [entry(name, one) for name, one in zip(names, found, strict=True)]
    return json.dumps(array, indent=1, allow_nan=False) + "\n"


def entry(name: str, tracked: Tracked) -> dict[str, Any]:
    """One entry; the tool shows the texts `range` and `extra` next to the value."""
    finding, value, interval = tracked
    document: dict[str, Any] = {"name": name, "unit": one_line(finding.unit), "value": value}
    if interval:
        low, high = (amount(end, finding.unit) for end in interval)
        document["range"] = f"95% interval {low} to {high}"
    return {**document, "extra": f"{finding.verdict}: {described(finding)}"}
