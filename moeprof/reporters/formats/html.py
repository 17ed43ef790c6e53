"""A report as one HTML page that needs no network: `report.html`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template

from moeprof.records.run.run import Run
from moeprof.records.units import format_significant
from moeprof.reporters.documents.document import Curves, Document, Heading
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.plot import NOTHING, cut, has_points, name_of_limit, name_of_y, named, scale_of_x, scale_of_y

PLOT_WIDTH, PLOT_HEIGHT = 720, 300
PLOT_TOP, PLOT_RIGHT, PLOT_BOTTOM = 34, 24, 46
"""Margins in pixels for axis names and tick labels."""
DIGIT = 7
"""The maximum width of an axis character in pixels."""

Label = tuple[float, str]
"""A position on an axis in pixels, and a text."""
PlotPoint = tuple[float, float, str]
"""A position in pixels, and the text of its tooltip."""


@dataclass(frozen=True)
class Drawing:
    """A plot in pixels; the origin is the upper left corner."""

    left: float
    right: float
    top: float
    bottom: float
    y_name: str
    x_ticks: Sequence[Label]
    y_ticks: Sequence[Label]
    curves: Sequence[Sequence[PlotPoint]]
    limit: Label | None
    limit_at_right: bool


def render(run: Run) -> str:
    """The report as one HTML page."""
    return render_document(document_of(run))


def render_document(document: Document) -> str:
    """Blocks in order, with all text escaped."""
    title = next((block.text for block in document if isinstance(block, Heading)), "moeprof")
    return template().render(
        title=title,
        blocks=document,
        kind_of=lambda block: type(block).__name__,
        tint=tint,
        has_points=has_points,
        nothing=NOTHING,
        drawing=drawing,
        named=named,
        plot_size=(PLOT_WIDTH, PLOT_HEIGHT),
    )


def tint(value: float, top: float) -> int:
    """The opacity of a heat map's cell in percent; only an exact zero is transparent."""
    return 0 if value <= 0 or top <= 0 else round(8 + 92 * min(value / top, 1.0))


def drawing(block: Curves) -> Drawing:
    """The positions of everything in a plot."""
    y = scale_of_y(block, most=7)
    y_words = [cut(block.write_y(tick), 24) for tick in y.ticks]
    left, right = 14.0 + DIGIT * max(map(len, y_words), default=0), float(PLOT_WIDTH - PLOT_RIGHT)
    top, bottom = float(PLOT_TOP), float(PLOT_HEIGHT - PLOT_BOTTOM)
    x = scale_of_x(block, int(right - left) // DIGIT)

    def across(value: float) -> float:
        return round(left + x.at(value) * (right - left), 1)

    def down(value: float) -> float:
        return round(bottom - y.at(value) * (bottom - top), 1)

    curves = [[(across(a), down(b), tooltip(block, label, a, b)) for a, b in points] for label, points in block.curves]
    limit = (down(block.limit[1]), name_of_limit(block)) if block.limit else None
    return Drawing(
        left=left,
        right=right,
        top=top,
        bottom=bottom,
        y_name=name_of_y(block, y),
        x_ticks=[(across(tick), format_significant(tick)) for tick in x.ticks],
        y_ticks=[(down(tick), words) for tick, words in zip(y.ticks, y_words, strict=True)],
        curves=curves,
        limit=limit,
        limit_at_right=limit is not None and crowded_at_left(curves, limit[0], left, right),
    )


def crowded_at_left(curves: Sequence[Sequence[PlotPoint]], height: float, left: float, right: float) -> bool:
    """Whether a text at this height is closer to a point in the first quarter of the plot than to one in the last."""
    quarter = (right - left) / 4
    points = [(x, abs(y - height)) for curve in curves for x, y, _ in curve]
    first = min((distance for x, distance in points if x <= left + quarter), default=math.inf)
    last = min((distance for x, distance in points if x >= right - quarter), default=math.inf)
    return first < last


def tooltip(block: Curves, label: str, x: float, y: float) -> str:
    """The tooltip of a point."""
    return f"{label}: {block.x_name} {format_significant(x)}, {block.y_name} {block.write_y(y)}"


@cache
def template() -> Template:
    """The page template; it escapes text and rejects undefined names."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template("report.html.j2")
