"""The parts a report is made of; every format renders the same parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from moeprof.records.units import format_significant


@dataclass(frozen=True)
class Heading:
    """Level 1 is the report's title."""

    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    """Plain sentences."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """Short statements, one per line."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Cells as they are shown; the first `labels` columns are words, the rest numbers."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1
    caption: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Values from 0 to `top`, one row per label; darker is more."""

    title: str
    labels: Sequence[str]
    values: Sequence[Sequence[float]]
    top: float
    caption: str = ""


@dataclass(frozen=True)
class Stacked:
    """Bars of parts that add up to a whole, one bar per label, all bars equally long."""

    title: str
    parts: Sequence[str]
    bars: Sequence[tuple[str, Sequence[float]]]
    """A label and the fraction of every part."""
    caption: str = ""


@dataclass(frozen=True)
class Curves:
    """Something over a batch size, one curve per label; x is spaced by its powers of two."""

    title: str
    x_name: str
    y_name: str
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    """A label and its points (x, y), x rising, all above 0; a curve may have one point or none."""
    caption: str = ""
    limit: tuple[str, float] | None = None
    """A name and the y, above 0, of a horizontal line."""
    write_y: Callable[[float], str] = format_significant
    """How a y is written, on the axis and elsewhere."""
    linear: bool = False
    """Whether y starts at 0 however far apart its values are."""


@dataclass(frozen=True)
class Details:
    """What not everybody needs: folded where a format can fold; a terminal shows the title only."""

    title: str
    blocks: "Sequence[Block]"


Block = Heading | Paragraph | Bullets | Table | HeatMap | Stacked | Curves | Details
Document = list[Block]
