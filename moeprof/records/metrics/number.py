"""Numbers that remember which rows of `metrics.csv` they come from, through arithmetic: a report can show where each is from."""

import json
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from moeprof.records.marks import MarkedNumber
from moeprof.records.metrics.row import RecordedRow, RowKey


@dataclass(frozen=True)
class Elsewhere:
    """The place of a number that is not a row of the run's own `metrics.csv`, by names of its parts: a file and a key, or a side."""

    parts: tuple[tuple[str, str], ...]


Term = RowKey | Elsewhere | float
"""The key of a row, another place, or a constant."""


@dataclass(frozen=True)
class Formula:
    """An operation on rows, constants and further formulas."""

    sign: str
    """One of OPERATIONS."""
    left: "Term | Formula"
    right: "Term | Formula"


OPERATIONS: Mapping[str, Callable[[float, float], float]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}


class RecordedNumber(MarkedNumber):
    """A float with its origin; sums, differences, products and quotients are RecordedNumbers too, whose origin is a Formula.

    Everything else that a float can do returns a plain float, which has no origin: `origin_of` returns its value.
    """

    origin: Term | Formula

    def __new__(cls, value: float, origin: Term | Formula) -> "RecordedNumber":
        """A number from a row, or the result of a formula."""
        number = super().__new__(cls, value)
        number.origin = origin
        return number

    def __add__(self, other: float) -> "RecordedNumber":
        return calculated("+", self, other)

    def __radd__(self, other: float) -> "RecordedNumber":
        return calculated("+", other, self)

    def __sub__(self, other: float) -> "RecordedNumber":
        return calculated("-", self, other)

    def __rsub__(self, other: float) -> "RecordedNumber":
        return calculated("-", other, self)

    def __mul__(self, other: float) -> "RecordedNumber":
        return calculated("*", self, other)

    def __rmul__(self, other: float) -> "RecordedNumber":
        return calculated("*", other, self)

    def __truediv__(self, other: float) -> "RecordedNumber":
        return calculated("/", self, other)

    def __rtruediv__(self, other: float) -> "RecordedNumber":
        return calculated("/", other, self)

    def __neg__(self) -> "RecordedNumber":
        return calculated("-", 0.0, self)

    def origin_json(self) -> str:
        return json.dumps(as_json(self.origin), ensure_ascii=False)


def number_in_record(value: float, key: str) -> RecordedNumber:
    """A number of a run's `run.json`, at a key such as `machine_load.others`."""
    return RecordedNumber(value, Elsewhere((("file", "run.json"), ("key", key))))


def number_of(row: RecordedRow) -> RecordedNumber:
    """The number of a row."""
    return RecordedNumber(row.value, row.key)


def calculated(sign: str, left: float, right: float) -> RecordedNumber:
    """The result of an operation, of which at least one operand is a RecordedNumber."""
    return RecordedNumber(OPERATIONS[sign](float(left), float(right)), Formula(sign, origin_of(left), origin_of(right)))


def origin_of(value: float) -> Term | Formula:
    """The origin of a RecordedNumber; a plain float is a constant, its own source."""
    return value.origin if isinstance(value, RecordedNumber) else float(value)


def cells_of(key: RowKey) -> dict[str, str]:
    """The cells of a key that are not empty."""
    return {name: cell for name, cell in key._asdict().items() if cell}


def as_json(origin: Term | Formula) -> Any:
    """An origin as JSON: the cells of a row's key that are not empty, the parts of another place, a constant, or `[sign, left, right]`."""
    match origin:
        case Formula(sign, left, right):
            return [sign, as_json(left), as_json(right)]
        case RowKey():
            return cells_of(origin)
        case Elsewhere():
            return dict(origin.parts)
        case _:
            return origin
