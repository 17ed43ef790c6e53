"""The candidate's gated values in Bencher Metric Format: benchmark, measure, value."""

import json

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.comparison_formats.names import numbered, place_name, tracked
from moeprof.reporters.comparison_formats.words import one_line

BENCHMARK, MEASURE = 1000, 64
"""Maximum lengths of names: Bencher allows 1,024 characters per benchmark, some of which a duplicate's number needs."""


def render(comparison: Comparison) -> str:
    """A benchmark per recipe and address; its measures are metrics with their 95% intervals."""
    benchmarks: dict[str, dict[str, dict[str, float]]] = {}
    for finding, value, interval in tracked(comparison):
        measure = one_line(finding.metric, MEASURE)
        names = numbered(fitted(place_name(finding)))
        name = next(free for free in names if measure not in benchmarks.get(free, {}))
        metric = {"value": value}
        if interval:
            metric["lower_value"], metric["upper_value"] = interval
        benchmarks.setdefault(name, {})[measure] = metric
    return json.dumps(benchmarks, indent=1, allow_nan=False) + "\n"


def fitted(name: str) -> str:
    """The name truncated so that it still ends in `)`: a name ending in `-bencher-ignore` would never alert."""
    return name if len(name) <= BENCHMARK else f"{one_line(name, BENCHMARK - 1)})"
