"""Numbers as text for cells and sentences."""

from collections.abc import Callable

from moeprof.analysis.placement.gain import Gain
from moeprof.records.units import format_count, format_duration, format_significant

MISSING = "-"

Write = Callable[[float], str]


def cell(value: float | None, write: Write = format_significant) -> str:
    """The number as `write` formats it, or a dash if there is none."""
    return MISSING if value is None else write(value)


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


def times(ratio: float) -> str:
    """A ratio with three significant digits: `12.8x`."""
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


def rate(tokens_per_s: float) -> str:
    """Tokens per second without a unit: `1,234`, `0.52`."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.3g}"


def plural(number: int, one: str, many: str) -> str:
    """`one` if the number is 1, else `many`."""
    return one if number == 1 else many


duration: Write = format_duration
count: Write = format_count
