"""The formats of a comparison by name; a new one is one file and one line here."""

from importlib import import_module

from moeprof.analysis.comparison.compare import Comparison

FORMATS = {
    "short": ("short", "render"),
    "terminal": ("terminal", "render"),
    "markdown": ("markdown", "render"),
    "html": ("html", "render"),
    "json": ("json", "render"),
    "junit": ("junit", "render"),
    "summary": ("github", "summary"),
    "annotations": ("github", "annotations"),
    "benchmark-action-bigger": ("benchmark_action", "bigger"),
    "benchmark-action-smaller": ("benchmark_action", "smaller"),
    "bencher": ("bencher", "render"),
}
"""The module and function of every format."""


def render(comparison: Comparison, form: str) -> str:
    """The comparison in one of FORMATS."""
    module, function = FORMATS[form]
    rendered: str = getattr(import_module(f"moeprof.reporters.comparison_formats.{module}"), function)(comparison)
    return rendered
