"""Heat maps and bars in characters; a cell is an expert, or a group of neighbours if the row is too narrow."""

from collections.abc import Sequence

SHADES = " ░▒▓█"
"""Shades from 0 to the top of the scale; only an exact zero is blank."""


def shade(value: float, top: float) -> str:
    """The character for one value on a scale from 0 to `top`."""
    if value <= 0 or top <= 0:
        return SHADES[0]
    step = len(SHADES) - 1
    return SHADES[min(step, 1 + int(value / top * step))]


def folded(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the maxima of groups of neighbours, so that no hot expert disappears."""
    group = -(-len(values) // max(width, 1))
    return [max(values[start : start + group]) for start in range(0, len(values), group)]


def shaded(values: Sequence[float], top: float, width: int) -> str:
    """One row of a heat map, at most `width` characters."""
    return "".join(shade(value, top) for value in folded(values, width))


def segments(parts: Sequence[str], fractions: Sequence[float], width: int) -> list[tuple[str, str, int]]:
    """(part, letter, cells) of a stacked bar of `width` cells, apportioned by the largest-remainder method."""
    whole = sum(fractions) or 1.0
    exact = [fraction / whole * width for fraction in fractions]
    cells = [int(value) for value in exact]
    by_remainder = sorted(range(len(exact)), key=lambda index: cells[index] - exact[index])
    for index in by_remainder[: width - sum(cells) if any(fractions) else 0]:
        cells[index] += 1
    return list(zip(parts, letters(parts), cells, strict=True))


def letters(parts: Sequence[str]) -> list[str]:
    """A letter for each part: the first letter of its name that is free, in upper case if necessary."""
    taken: list[str] = []
    for part in parts:
        candidates = [*part, *part.upper(), *"0123456789"]
        taken.append(next((letter for letter in candidates if letter.isalnum() and letter not in taken), "?"))
    return taken
