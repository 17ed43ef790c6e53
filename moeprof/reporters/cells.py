"""How numbers are written in a cell or a sentence."""

from collections.abc import Callable

from moeprof.records.units import format_count, format_duration, format_significant

MISSING = "-"

Write = Callable[[float], str]


def cell(value: float | None, write: Write = format_significant) -> str:
    """The number as `write` shows it, or a dash."""
    return MISSING if value is None else write(value)


def percent(fraction: float) -> str:
    """`12.3%`; a share that is not nothing never looks like nothing, nor one below everything like everything."""
    text = f"{fraction:.1%}"
    if text == "0.0%" and fraction > 0:
        text = "<0.1%"
    if text == "100.0%" and fraction < 1:
        text = ">99.9%"
    return text


def times(ratio: float) -> str:
    """`12.8x`."""
    return f"{ratio:.3g}x" if ratio < 1000 else f"{ratio:,.0f}x"


def rate(tokens_per_s: float) -> str:
    """Tokens per second, in words a table has room for."""
    return f"{tokens_per_s:,.0f}" if tokens_per_s >= 10 else f"{tokens_per_s:.3g}"


duration: Write = format_duration
count: Write = format_count
