"""Figures as JSON for the script of the page; every value has its rows of `metrics.csv`, or its series a source."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from moeprof.records.marks import MarkedText, pieces, unmarked
from moeprof.records.metrics.number import RecordedNumber, as_json
from moeprof.reporters.page.figure import Axis, Figure, FileSource, HeatCells, Hue, MarkedLine, Series, View
from moeprof.reporters.page.palette import Palette, all_series, hue_of, palette_of

FACTORS: dict[str, Sequence[tuple[float, str]]] = {
    "ns": ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1, "ns")),
    "bytes": ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1, "B")),
    "fraction": ((0.01, "%"),),
    "tokens/s": ((1, "tokens/s"),),
    "ratio": ((1, "x"),),
    "": ((1, ""),),
}
"""Units of display, the largest first: how many base units one of them is, and its name."""


def encoded(figure: Figure, name: str, palette: Palette | None = None) -> dict[str, Any]:
    """The figure as JSON values, under a name that is unique in the page; without a palette, it is a document of its own."""
    colours = palette_of([figure]) if palette is None else palette
    return {
        "name": name,
        "title": figure.title,
        "horizontal": figure.horizontal,
        "position": encoded_axis(figure.position, positions_of(figure)),
        "value": encoded_axis(figure.value, values_of(figure)),
        "rows": figure.rows.name if figure.rows else "",
        "first": figure.first,
        "opens": list(figure.opens) if figure.opens else None,
        "common": [encoded_series(figure, series, colours) for series in figure.common],
        "views": [encoded_view(figure, view, colours) for view in figure.views],
    }


def encoded_axis(axis: Axis, numbers: Iterable[float]) -> dict[str, Any]:
    """An axis with the unit in which its largest number is at least 1."""
    factor, unit = unit_of(axis, max((abs(number) for number in numbers if math.isfinite(number)), default=0.0))
    return {"name": axis.name, "base": axis.unit, "factor": factor, "unit": unit, "logarithmic": axis.logarithmic}


def unit_of(axis: Axis, largest: float) -> tuple[float, str]:
    """The unit of display of an axis whose largest number is this, in base units."""
    units = FACTORS[axis.unit]
    return next((pair for pair in units if largest >= pair[0]), units[-1])


def values_of(figure: Figure) -> Iterator[float]:
    """Every number on the value axis."""
    for series in all_series(figure):
        yield from (*series.values, *series.low, *series.high)
    for view in figure.views:
        yield from (mark.value for mark in view.marks if mark.across)
        yield from (value for row in (view.heat.values if view.heat else ()) for value in row if value is not None)


def positions_of(figure: Figure) -> Iterator[float]:
    """Every number on the position axis; none if positions are names."""
    for series in all_series(figure):
        yield from (float(at) for at in series.at if not isinstance(at, str))


def encoded_view(figure: Figure, view: View, palette: Palette) -> dict[str, Any]:
    """The series, cells and marks of one selection."""
    return {
        "facets": dict(view.facets),
        "series": [encoded_series(figure, series, palette) for series in view.series],
        "heat": encoded_heat(figure, view.heat) if view.heat else None,
        "marks": [encoded_mark(figure, mark) for mark in view.marks],
        "readout": [encoded_piece(piece) for piece in pieces(view.readout)],
    }


def encoded_piece(piece: str | MarkedText) -> Any:
    """A part of a sentence: text, or a number with its origin."""
    return piece if isinstance(piece, str) else {"text": piece.text, "origin": piece.origin, "value": piece.value}


def encoded_series(figure: Figure, series: Series, palette: Palette) -> dict[str, Any]:
    """A series with the origins of its positions, values and intervals."""
    hue = hue_of(figure, series)
    return {
        "name": series.name,
        "shape": series.shape,
        "colour": palette[hue] if isinstance(hue, Hue) else hue,
        "at": [at if isinstance(at, str) else plain(at) for at in series.at],
        "values": [plain(value) for value in series.values],
        "low": [plain(value) for value in series.low],
        "high": [plain(value) for value in series.high],
        "remarks": list(series.remarks),
        **origins(figure, series.source, {"values": series.values, "low": series.low, "high": series.high}),
        **({"at_origins": found} if (found := recorded(series.at)) else {}),
        **({"only": dict(series.only)} if series.only else {}),
    }


def encoded_heat(figure: Figure, heat: HeatCells) -> dict[str, Any]:
    """A heat map, rows from top to bottom."""
    return {
        "rows": list(heat.rows),
        "columns": list(heat.columns),
        "values": [[None if value is None else plain(value) for value in row] for row in heat.values],
        "diverging": heat.diverging,
        "low": heat.low,
        "high": heat.high,
        "sortable": heat.sortable,
        "steps": [list(step) for step in heat.steps],
        **origins(figure, heat.source, {"values": [value for row in heat.values for value in row]}),
    }


def encoded_mark(figure: Figure, mark: MarkedLine) -> dict[str, Any]:
    """A line across the figure."""
    found = origins(figure, mark.source, {"value": [mark.value]})
    return {"name": mark.name, "value": plain(mark.value), "across": mark.across, **found}


def origins(figure: Figure, source: FileSource | None, values: dict[str, Sequence[float | None]]) -> dict[str, Any]:
    """The origins of values that have one, and the source of the others; ValueError if there are others without a source."""
    found = {name: recorded(numbers) for name, numbers in values.items()}
    whole = {name for name, each in found.items() if len(each) == sum(number is not None for number in values[name])}
    if not source and whole != set(values):
        raise ValueError(
            f"figure {figure.name}: {min(set(values) - whole)} have no origin; take them from RunMetrics, or name their FileSource"
        )
    encoded_source = {"source": {"file": source.file, "formula": source.formula}} if source else {}
    return encoded_source | {"origins": {name: each for name, each in found.items() if each and name in whole}}


def recorded(values: Sequence[float | str | None]) -> list[Any]:
    """The origins of the numbers that have one."""
    return [as_json(value.origin) for value in values if isinstance(value, RecordedNumber)]


def plain(value: float) -> float | int:
    """A number as JSON has it: whole numbers without a fraction, others with seven significant digits."""
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else float(f"{number:.7g}")


def script_json(document: Any) -> str:
    """JSON without marks, that no text can end the script element of: `<`, `>` and `&` are escaped."""
    text = unmarked(json.dumps(document, separators=(",", ":"), allow_nan=False, ensure_ascii=False))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
