"""The candidate's gated values in Bencher Metric Format: benchmark, measure, value."""

import json

from moeprof.analysis.comparison.compare import Comparison
from moeprof.reporters.comparison_formats.names import numbered, place_name, tracked
from moeprof.reporters.comparison_formats.words import one_line

BENCHMARK, MEASURE = 1000, 64
"""Characters that a name may have: Bencher takes 1,024 of a benchmark, of which a namesake's number needs some."""


def render(comparison: Comparison) -> str:
    """A benchmark is a recipe and where in it; its measures are metrics, with the ends of their 95% interval."""
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
    """Cut to size; it still ends in `)`, for a name that ends in `-bencher-ignore` would never alert."""
    return name if len(name) <= BENCHMARK else f"{one_line(name, BENCHMARK - 1)})"
