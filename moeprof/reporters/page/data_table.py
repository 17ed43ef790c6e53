"""The data of a figure as a table, for readers without script; the script makes the same rows of every other selection."""

from collections.abc import Iterator, Sequence

from moeprof.reporters.cells import cell
from moeprof.reporters.documents.document import Table
from moeprof.reporters.page.figure import Axis, Figure, HeatCells, Series

MOST_ROWS = 60
"""Rows that the page writes; the script and the downloads have all."""


def data_table(figure: Figure) -> Table:
    """The first rows of the first view: series, position, value, the ends of its interval, and a remark."""
    view = figure.start
    if view.heat:
        columns = [figure.rows.name if figure.rows else "row", figure.position.name, named(figure.value)]
        rows = list(heat_rows(view.heat))
    else:
        columns = ["series", named(figure.position), named(figure.value), "low", "high", "remark"]
        rows = [row for series in figure.series_of(view) for row in series_rows(series)]
    shown = rows[:MOST_ROWS]
    left = f" The first {MOST_ROWS} of {len(rows):,} rows; the downloads have all." if len(rows) > MOST_ROWS else ""
    facets = ", ".join(view.facets.values())
    return Table(columns, shown, labels=2 if view.heat else 1, caption=f"{facets}{'.' if facets else ''}{left}".strip())


def named(axis: Axis) -> str:
    """The name of an axis with the unit of its raw numbers."""
    return f"{axis.name} ({axis.unit})" if axis.unit else axis.name


def series_rows(series: Series) -> Iterator[Sequence[str]]:
    """A row for every value of a series."""
    for index, (at, value) in enumerate(zip(series.at, series.values, strict=True)):
        ends = [cell(each[index], raw) if each else "" for each in (series.low, series.high)]
        remark = series.remarks[index] if series.remarks else ""
        yield [series.name, at if isinstance(at, str) else cell(at, raw), cell(value, raw), *ends, remark]


def heat_rows(heat: HeatCells) -> Iterator[Sequence[str]]:
    """A row for every cell of a heat map."""
    for row, values in zip(heat.rows, heat.values, strict=True):
        for column, value in zip(heat.columns, values, strict=True):
            yield [row, column, cell(value, raw)]


def raw(value: float) -> str:
    """A number in its base unit, with seven significant digits."""
    return f"{value:.7g}"
