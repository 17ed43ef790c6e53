"""A figure of the report page: what it shows, in every selection that a reader can make, and where its values come from.

A section makes figures of numbers in base units (ns, bytes, fractions); the page chooses the units that are displayed. To add one,
yield a `Figure` from a section; drawing, selectors, downloads, the table of its data and its text alternative follow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Facets = Mapping[str, str]
"""Selectors by name with the choice that is shown: `{"phase": "decode", "layer": "3"}`, in words that a reader sees."""
Unit = Literal["", "ns", "bytes", "tokens/s", "fraction", "ratio"]
SeriesShape = Literal["bars", "line", "dots", "area", "rule"]
"""Lines have dots at their points, rules have none, areas are stacked on each other."""


@dataclass(frozen=True)
class Hue:
    """What a categorical colour stands for; the same thing has the same colour in every figure and run of a document."""

    kind: str
    """`variant`, `policy`: things of a kind have different colours."""
    name: str


Colour = int | Hue | Literal["muted", "ink"]
"""What a categorical colour stands for, or its index; `muted` for context, `ink` for bounds."""


@dataclass(frozen=True)
class FileSource:
    """Where values come from that no row of `metrics.csv` holds."""

    file: str
    """A file of the run directory; it may have wildcards: `routing/score-*.parquet`."""
    formula: str
    """What is computed from it, in words: `time_ns / steps by round`. A test computes it independently."""


@dataclass(frozen=True)
class Axis:
    """An axis, and the unit of its numbers."""

    name: str
    unit: Unit = ""
    logarithmic: bool = False


@dataclass(frozen=True)
class Series:
    """Values at positions, drawn in one colour; values, or ends of intervals, that are not all RecordedNumbers need a source."""

    name: str
    at: Sequence[float | str]
    """Positions: numbers, or names of categories."""
    values: Sequence[float]
    shape: SeriesShape = "line"
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    """The ends of the intervals of all values, or nothing."""
    remarks: Sequence[str] = ()
    """A remark for each value, shown with it: `out of memory`."""
    colour: Colour | None = None
    """By default that of all series with this name in figures with the name of this one."""
    source: FileSource | None = None
    only: Facets = field(default_factory=dict)
    """Of a common series: the choices under which it is shown; by default under all."""


@dataclass(frozen=True)
class HeatCells:
    """A value for every row and column; None where there is none."""

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    source: FileSource | None = None
    diverging: bool = False
    """Whether colours diverge from 0, blue below and orange above; otherwise they rise from `low`."""
    low: float | None = None
    high: float | None = None
    """The values of the ends of the colour scale; by default the extremes."""
    sortable: bool = False
    """Whether a reader may sort the cells of every row by value; hovering names the column of a cell."""
    steps: Sequence[tuple[float, str]] = ()
    """Ticks of the colour scale with their names: `(1.0, "2x")`; by default round numbers."""


@dataclass(frozen=True)
class MarkedLine:
    """A line across the figure at a value or a position, with its name."""

    name: str
    value: float
    across: bool = True
    """Whether the value belongs to the value axis; otherwise it is a position."""
    source: FileSource | None = None


@dataclass(frozen=True)
class View:
    """What a figure shows under one selection."""

    facets: Facets = field(default_factory=dict)
    series: Sequence[Series] = ()
    heat: HeatCells | None = None
    marks: Sequence[MarkedLine] = ()
    readout: str = ""
    """A sentence that belongs to this selection."""


@dataclass(frozen=True)
class Figure:
    """One figure; its name is unique in a run."""

    name: str
    title: str
    sentence: str
    """What is seen in it, with the important numbers: also its text alternative."""
    position: Axis
    value: Axis
    views: Sequence[View]
    """At least one; that of index `first` is shown first."""
    common: Sequence[Series] = ()
    """Series of every view, or of those with the choices of `Series.only`."""
    rows: Axis | None = None
    """The axis of the rows of a heat map."""
    horizontal: bool = False
    """Whether positions are drawn from top to bottom and values from left to right."""
    sliders: Sequence[str] = ()
    """Names of facets that are chosen by a slider, not from a list."""
    opens: tuple[str, str] | None = None
    """The name of a figure and of its facet that a click on a position selects."""
    first: int = 0
    caption: str = ""

    @property
    def start(self) -> View:
        """The view that is shown first."""
        return self.views[self.first]

    def series_of(self, view: View) -> list[Series]:
        """The series that are shown in a view, common ones first."""
        common = [one for one in self.common if all(view.facets.get(name) == choice for name, choice in one.only.items())]
        return [*common, *view.series]
