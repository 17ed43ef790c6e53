"""Numbers as text for cells and sentences."""

from collections.abc import Callable

from moeprof.analysis.placement.gain import Gain
from moeprof.records.marks import keeps_origin, number_text
from moeprof.records.metrics.number import Formula, RecordedNumber, Term
from moeprof.records.units import format_count, format_duration, format_significant

MISSING = "-"

Write = Callable[[float], str]


class CellText(str):
    """The text of a number that keeps the number and its origin, also when other text is added to it."""

    __slots__ = ("origin", "value")
    value: float
    origin: Term | Formula

    def __new__(cls, text: str, value: float, origin: Term | Formula) -> "CellText":
        """The text of a number with this origin."""
        made = super().__new__(cls, text)
        made.value, made.origin = value, origin
        return made

    def __add__(self, other: str) -> "CellText":
        return CellText(str(self) + other, self.value, self.origin)

    def __radd__(self, other: str) -> "CellText":
        return CellText(other + str(self), self.value, self.origin)

    def __format__(self, form: str) -> str:
        return number_text(str(self).__format__(form), RecordedNumber(self.value, self.origin))


def cell(value: float | None, write: Write = format_significant) -> str:
    """The number as `write` formats it, with its origin if it has one; a dash if there is no number."""
    if value is None:
        return MISSING
    text = write(float(value))
    return CellText(text, float(value), value.origin) if isinstance(value, RecordedNumber) else text


@keeps_origin
def percent(fraction: float) -> str:
    """`12.3%`; `<0.1%` and `>99.9%` if rounding would show 0 or 100% for a fraction that is neither."""
    text = f"{fraction:.1%}"
    if text == "0.0%" and fraction > 0:
        text = "<0.1%"
    if text == "100.0%" and fraction < 1:
        text = ">99.9%"
    return text


def interval(gain: Gain) -> str:
    """`7.4% (95% interval 5.6% to 9.2%)`."""
    return f"{percent(gain.value)} (95% interval {percent(gain.low)} to {percent(gain.high)})"


def at_once(number: int, what: str) -> str:
    """`; the intervals of 9 balancers hold at once`, or nothing for a single one."""
    return f"; the intervals of {number:,} {what} hold at once" if number > 1 else ""


@keeps_origin
def times(ratio: float) -> str:
    """A ratio with three significant digits: `12.8x`."""
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


@keeps_origin
def rate(tokens_per_s: float) -> str:
    """Tokens per second without a unit: `1,234`, `0.52`."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.3g}"


def plural(number: int, one: str, many: str) -> str:
    """`one` if the number is 1, else `many`."""
    return one if number == 1 else many


duration: Write = format_duration
count: Write = format_count
