"""Curves in characters, labelled at their ends; a table instead if there are too many, or if one would hide another."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product

from moeprof.records.units import format_significant
from moeprof.reporters.cells import cell
from moeprof.reporters.documents.document import Curves, Table

NOTHING = "Nothing to plot: no curve has a point."
ROWS = 14
LOGARITHMIC_FROM = 20
"""The ratio of largest to smallest y above which the y axis is logarithmic."""
ROUNDING = 1e-9
"""Tolerance in steps: 0.3 is three steps of 0.1, although 0.3 / 0.1 is slightly less than 3."""
DOT, DASH = "·", "╌"
MARKS = "o+x"
"""What stands at the points of each curve and before its label."""

Cell = tuple[int, int]
"""Row from the top, column from the left."""
Span = tuple[str, int | None]
"""Characters, and the index of the curve that they belong to."""


@dataclass(frozen=True)
class Scale:
    """An axis: its two ends, and the round values at which it has ticks."""

    low: float
    high: float
    logarithmic: bool
    ticks: Sequence[float]

    def at(self, value: float) -> float:
        """The position of a value, 0 at the low end and 1 at the high end; 0.5 if the axis has a single value."""
        if self.low == self.high:
            return 0.5
        measure = math.log2 if self.logarithmic else float
        low, high = measure(self.low), measure(self.high)
        return min(max((measure(value) - low) / (high - low), 0.0), 1.0)


def has_points(block: Curves) -> bool:
    """Whether any curve has a point."""
    return any(points for _, points in block.curves)


def scale_of_x(block: Curves, characters: int) -> Scale:
    """An axis between two powers of two; its ticks are far enough apart for labels on an axis of `characters`."""
    values = [x for _, points in block.curves for x, _ in points]
    mantissa, exponent = math.frexp(max(values))
    first, last = floor_log2(min(values)), min(exponent - (mantissa == 0.5), 1023)
    ends = math.ldexp(1.0, first), math.ldexp(1.0, last)
    longest = max(len(format_significant(end)) for end in ends)
    # A label centred at either end is pushed inwards by half its length, hence one and a half.
    stride = max(1, math.ceil((1.5 * longest + 2) * (last - first) / characters))
    return Scale(*ends, True, powers_of_two(first, last, stride))


def scale_of_y(block: Curves, most: int) -> Scale:
    """An axis from 0 to the largest value or the limit, or a logarithmic one; at most `most` (3 or more) ticks."""
    values = [y for _, points in block.curves for _, y in points] + ([block.limit[1]] if block.limit else [])
    low, high = min(values), max(values)
    binary = counts_in_binary(block.write_y)
    if not block.linear and high / low > LOGARITHMIC_FROM:
        return Scale(low, high, True, logarithmic_ticks(low, high, most, binary))
    step = linear_step(high, most, binary)
    ticks = [min(step * index, high) for index in range(math.floor(high / step + ROUNDING) + 1)]
    return Scale(0.0, high, False, ticks)


def counts_in_binary(write: Callable[[float], str]) -> bool:
    """Whether the formatter uses binary units, as `format_bytes` does: then 2**30 is shorter than 10**9."""
    return len(write(2.0**30)) < len(write(1e9))


def linear_step(high: float, most: int, binary: bool) -> float:
    """The smallest round step that reaches `high` in fewer than `most` steps."""
    if binary:
        top = floor_log2(high)
        candidates = [math.ldexp(1.0, exponent) for exponent in range(top - most, top + 1)]
    else:
        top = math.floor(math.log10(high))
        candidates = list(decimals(top - 1, top, (1, 2, 5)))
    return next(step for step in candidates if high < step * (most - ROUNDING))


def logarithmic_ticks(low: float, high: float, most: int, binary: bool) -> list[float]:
    """Powers of two, or powers of ten with as many round numbers between them as fit into `most` ticks."""
    if binary:
        first, last = floor_log2(low) + 1, floor_log2(high)
        return powers_of_two(first, last, max(1, math.ceil((last - first + 1) / most)))
    first, last = math.floor(math.log10(low)), math.floor(math.log10(high))
    for digits in ((1, 2, 5), (1, 3), (1,)):
        ticks = [tick for tick in decimals(first, last, digits) if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    return ticks[:: math.ceil(len(ticks) / most)]


def floor_log2(value: float) -> int:
    """floor(log2(value)), exact even next to a power of two."""
    return math.frexp(value)[1] - 1


def powers_of_two(first: int, last: int, stride: int) -> list[float]:
    """2**first, and every `stride`-th power after it up to 2**last."""
    return [math.ldexp(1.0, exponent) for exponent in range(first, last + 1, stride)]


def decimals(first: int, last: int, digits: Sequence[int]) -> Iterator[float]:
    """Each digit times each power of ten, parsed from text because 10.0**-5 is not the float nearest to 1e-5."""
    return (float(f"{digit}e{exponent}") for exponent in range(first, last + 1) for digit in digits)


def name_of_y(block: Curves, y: Scale) -> str:
    """The name of the y axis, marked if the axis is logarithmic."""
    return f"{block.y_name} (logarithmic)" if y.logarithmic else block.y_name


def canvas(block: Curves, width: int, rows: int = ROWS) -> list[list[Span]] | None:
    """Lines of at most `width` characters: the curves in `rows` rows (3 or more), their labels, and the axes.

    None if a table shows the curves better: there are more than there are marks, or one hides another.
    """
    if not has_points(block):
        return [[(cut(NOTHING, width), None)]]
    drawn = [(index, label) for index, (label, points) in enumerate(block.curves) if points]
    y = scale_of_y(block, max(3, rows // 2 - 1))
    names = {row_of(tick, y, rows): cut(block.write_y(tick), width // 4) for tick in y.ticks}
    labels = {index: f"{mark} {cut(label, width // 4)}" for mark, (index, label) in zip(MARKS, drawn, strict=False)}
    margin, beside = max(map(len, names.values()), default=0), 1 + max(map(len, labels.values()))
    columns = width - margin - 2 - beside
    x = scale_of_x(block, columns)
    paths = {index: path_of(block.curves[index][1], x, y, columns, rows) for index, _ in drawn}
    if len(drawn) > len(MARKS) or hides(list(paths.values())):
        return None
    cells = cells_of(paths, labels, columns, rows)
    if block.limit:
        cells = with_limit(name_of_limit(block), row_of(block.limit[1], y, rows), cells, columns)
    lines: list[list[Span]] = [[(cut(name_of_y(block, y), width), None)]]
    for row in range(rows):
        edge = f"{names.get(row, ''):>{margin}} {'┤' if row in names else '│'}"
        lines.append([(edge, None), *(cells.get((row, column), (" ", None)) for column in range(columns + beside))])
    absent: list[list[Span]] = [[(cut(f"{label}: no point", width), None)] for label, points in block.curves if not points]
    return [*lines, *feet(x, columns, margin + 2, block.x_name), *absent]


def as_table(block: Curves) -> Table:
    """The values of the curves, a row per size."""
    known = [dict(points) for _, points in block.curves]
    sizes = sorted({x for points in known for x in points})
    rows = [[format_significant(x), *(cell(points.get(x), block.write_y) for points in known)] for x in sizes]
    caption = f"{'; '.join(filter(None, (f'{block.y_name} by {block.x_name}', name_of_limit(block))))}. {block.caption}".strip()
    return Table([block.x_name, *(label for label, _ in block.curves)], rows, caption=caption)


def row_of(value: float, y: Scale, rows: int) -> int:
    """The row of a y value; row 0 is the top."""
    return rows - 1 - round(y.at(value) * (rows - 1))


def column_of(value: float, x: Scale, columns: int) -> int:
    """The column of an x value; column 0 is next to the axis."""
    return round(x.at(value) * (columns - 1))


def path_of(points: Sequence[tuple[float, float]], x: Scale, y: Scale, columns: int, rows: int) -> list[Cell]:
    """The cells of the points of a curve."""
    return [(row_of(b, y, rows), column_of(a, x, columns)) for a, b in points]


def hides(paths: Sequence[Sequence[Cell]]) -> bool:
    """Whether more than half of the points of a curve are under those of later ones."""
    later: set[Cell] = set()
    for path in reversed(paths):
        own = set(path)
        if 2 * len(own & later) > len(own):
            return True
        later |= own
    return False


def cells_of(paths: dict[int, list[Cell]], labels: Mapping[int, str], columns: int, rows: int) -> dict[Cell, Span]:
    """The cells that are not blank: marks cover dots; labels, with a blank on either side, cover nothing."""
    cells: dict[Cell, Span] = {}
    for index, path in paths.items():
        cells |= {cell: (DOT, index) for start, end in pairwise(path) for cell in between(start, end)}
    for index, path in paths.items():
        cells |= dict.fromkeys(path, (labels[index][0], index))
    for index, path in reversed(paths.items()):  # of ends in one cell, the label of the visible one is next to it
        row, column = place_of(labels[index], path[-1], cells, columns, rows)
        cells |= {(row, column + offset): (letter, index) for offset, letter in enumerate(f" {labels[index]} ", -1)}
    return cells


def place_of(label: str, end: Cell, cells: Mapping[Cell, Span], columns: int, rows: int) -> Cell:
    """Where a label starts: right of the end of its curve, at most two rows away; or else beside the plot, as near as it is free."""
    nearest = sorted(range(rows), key=lambda row: abs(row - end[0]))
    near = [row for row in nearest if abs(row - end[0]) <= 2]
    places = [*product(near, [end[1] + 2]), *product(nearest, [columns + 1])]
    return next(
        (row, column)
        for row, column in places
        if not any((row, column + offset) in cells for offset in range(-1, len(label) + 1))
    )


def with_limit(words: str, row: int, cells: dict[Cell, Span], columns: int) -> dict[Cell, Span]:
    """The cells over a dashed row, with the name of the limit in it."""
    dashes: dict[Cell, Span] = {(row, column): (DASH, None) for column in range(columns)}
    return dashes | cells | words_on(row, f" {cut(words, columns - 2)} ", cells, columns)


def between(start: Cell, end: Cell) -> Iterator[Cell]:
    """The cells of a straight line without its ends: one per row or one per column, whichever gives more cells."""
    (row, column), (last_row, last_column) = start, end
    steps = max(abs(last_row - row), abs(last_column - column))
    for step in range(1, steps):
        yield row + round((last_row - row) * step / steps), column + round((last_column - column) * step / steps)


def words_on(row: int, words: str, cells: dict[Cell, Span], columns: int) -> dict[Cell, Span]:
    """The words at the position in the row where they hide the fewest letters, then the fewest dots, then the leftmost."""
    weights = {cell: 1 if text == DOT else columns for cell, (text, _) in cells.items()}

    def hidden(start: int) -> int:
        return sum(weights.get((row, start + offset), 0) for offset in range(len(words)))

    last = columns - len(words)
    start = min(range(min(2, last), last + 1), key=hidden)  # two dashes first, where they fit
    return {(row, start + offset): (letter, None) for offset, letter in enumerate(words)}


def name_of_limit(block: Curves) -> str:
    """The limit in words: `budget 2.42 GiB`; empty without a limit."""
    return f"{block.limit[0]} {block.write_y(block.limit[1])}" if block.limit else ""


def feet(x: Scale, columns: int, margin: int, name: str) -> list[list[Span]]:
    """The lines below the plot: the x axis, its tick labels, and its name."""
    width = margin + columns
    line, numbers = [*" " * (margin - 1), "└", *"─" * columns], [" "] * width
    for tick in x.ticks:
        text, place = cut(format_significant(tick), width), margin + column_of(tick, x, columns)
        line[place] = "┬"
        start = max(0, min(place - (len(text) - 1) // 2, width - len(text)))
        numbers[start : start + len(text)] = text
    return [[("".join(line), None)], [("".join(numbers), None)], [(f"{cut(name, columns):>{width}}", None)]]


def cut(text: str, width: int) -> str:
    """The text, truncated to `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
