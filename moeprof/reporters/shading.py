"""Heat maps and bars in characters; a cell is an expert, or a group of neighbours if the row is too narrow."""

from collections.abc import Sequence
from math import log2

from moeprof.reporters.documents.document import HeatMap

SHADES = " ░▒▓█"
"""Shades from 0 to the top of the scale; only an exact zero is blank."""

STEPS = ".:-=░▒▓█"
"""The eight steps of log2(load / even): four below the even load, from less than an eighth of it, and four above, up to eight times."""

STEP_SCALE = "Scale, load / even load: blank 0, . < 1/8, : < 1/4, - < 1/2, = < 1, ░ < 2, ▒ < 4, ▓ < 8, █ ≥ 8."

REGION_LETTERS = {
    "gate": "g",
    "dispatch": "d",
    "a2a_sizes": "z",
    "a2a_dispatch": "t",
    "expert_load": "l",
    "experts": "e",
    "shared_experts": "s",
    "a2a_combine": "b",
    "combine": "c",
    "embed": "m",
    "attention": "a",
    "cross_attention": "x",
    "dense_ffn": "f",
    "head": "h",
    "other": "o",
}
"""The letter of every region, the same in every bar."""


def shade(value: float, top: float) -> str:
    """The character for one value on a scale from 0 to `top`."""
    if value <= 0 or top <= 0:
        return SHADES[0]
    step = len(SHADES) - 1
    return SHADES[min(step, 1 + int(value / top * step))]


def step(value: float, even: float) -> str:
    """The character for one load beside an even load: one of STEPS for each doubling; only an exact zero is blank."""
    if value <= 0 or even <= 0:
        return SHADES[0]
    middle = len(STEPS) // 2
    doublings = int(log2(value / even) // 1)
    return STEPS[min(max(middle + doublings, 0), len(STEPS) - 1)]


def folded(values: Sequence[float], width: int) -> list[float]:
    """At most `width` values: the maxima of groups of neighbours, so that no hot expert disappears."""
    group = group_size(len(values), width)
    return [max(values[start : start + group]) for start in range(0, len(values), group)]


def group_size(count: int, width: int) -> int:
    """Neighbours that one of at most `width` characters shows."""
    return max(1, -(-count // max(width, 1)))


def shaded(values: Sequence[float], top: float, width: int, even: float | None = None) -> str:
    """One row of a heat map, at most `width` characters: on a scale from 0 to `top`, or in steps beside an even load."""
    return "".join(shade(value, top) if even is None else step(value, even) for value in folded(values, width))


def map_caption(block: HeatMap, width: int) -> str:
    """The caption of a heat map in characters: with the scale of its steps, and with what one character is if it is a group."""
    group = group_size(max(map(len, block.values), default=1), width)
    parts = [
        block.caption,
        STEP_SCALE if block.even is not None else "",
        f"One character is {group} neighbours, the largest of them." if group > 1 else "",
    ]
    return " ".join(filter(None, parts))


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
    """A letter for each part: that of a region, which is the same in every bar, or the first one of the name that is free.

    A part without a name is blank.
    """
    taken = [REGION_LETTERS[part] for part in parts if part in REGION_LETTERS]
    found = []
    for part in parts:
        letter = " " if not part else REGION_LETTERS.get(part) or free_letter(part, taken)
        taken.append(letter)
        found.append(letter)
    return found


def free_letter(part: str, taken: Sequence[str]) -> str:
    """The first letter of the name that is not taken, in upper case if necessary, or a digit."""
    candidates = [*part, *part.upper(), *"0123456789"]
    return next((letter for letter in candidates if letter.isalnum() and letter not in taken), "?")
