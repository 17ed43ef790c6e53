"""The blocks of a report; every format renders the same blocks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moeprof.records.units import format_significant


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the title of the report."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of plain sentences."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """Short statements, each on its own line."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as text; the first `labels` columns hold words, the others numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    caption: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Values from 0 to `top`, one row per label; a darker cell is a larger value."""

    title: str
    labels: Sequence[str]
    values: Sequence[Sequence[float]]
    top: float
    caption: str = ""
    even: float | None = None
    """The value of each cell if all were equal, for loads: text shows log2(value / even) in steps, and their scale."""


@dataclass(frozen=True)
class Stacked:
    """Bars of equal length, one per label, divided into parts that add up to 1; a part without a name is blank."""

    title: str
    parts: Sequence[str]
    bars: Sequence[tuple[str, Sequence[float]]]
    """A label and the fraction of every part."""
    caption: str = ""


@dataclass(frozen=True)
class Curves:
    """Curves over a size, one per label; the x axis is logarithmic with base 2."""

    title: str
    x_name: str
    y_name: str
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    """A label and its points (x, y), by rising x; x and y are positive. A curve may have one point or none."""
    caption: str = ""
    limit: tuple[str, float] | None = None
    """The name and the y (> 0) of a horizontal line."""
    write_y: Callable[[float], str] = format_significant
    """Formats a y value, on the axis and elsewhere."""
    linear: bool = False
    """Whether y starts at 0, even if its values differ by orders of magnitude."""


@dataclass(frozen=True)
class Details:
    """Blocks for readers who want detail: folded if the format can fold; a terminal shows the title only."""

    title: str
    blocks: "Sequence[Block]"


Block = Heading | Paragraph | Bullets | Table | HeatMap | Stacked | Curves | Details
Document = list[Block]
