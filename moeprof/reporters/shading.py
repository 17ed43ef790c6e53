"""Heat maps in characters: one cell per expert, or per group of neighbours where the line is too narrow."""

from collections.abc import Sequence

SHADES = " ░▒▓█"
"""From nothing to the top; only an exact zero is blank."""


def shade(value: float, top: float) -> str:
    """The character for one value."""
    if value <= 0 or top <= 0:
        return SHADES[0]
    step = len(SHADES) - 1
    return SHADES[min(step, 1 + int(value / top * step))]


def folded(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: each the largest of a group of neighbours, so that no hot expert disappears."""
    group = -(-len(values) // max(width, 1))
    return [max(values[start : start + group]) for start in range(0, len(values), group)]


def shaded(values: Sequence[float], top: float, width: int) -> str:
    """One line of a heat map."""
    return "".join(shade(value, top) for value in folded(values, width))
