"""The knee of a curve; reports use it too, so it needs nothing that compiles."""

from collections.abc import Sequence

FEWEST_POINTS = 3
"""The fewest points of a curve that can have a knee; two are a straight line."""

FLAT = 0.05
"""A curve that stays within this fraction of its drop below the straight line between its ends has no knee."""


def knee(points: Sequence[tuple[int, float]]) -> int | None:
    """The knee of a falling curve: the x from which more slots bring less than they did on average; the smallest of several.

    It is the point deepest below the line from the first point to the last, which is Kneedle's point without smoothing (Satopaa,
    Albrecht, Irwin, Raghavan: Finding a "Kneedle" in a Haystack, ICDCSW 2011). `points` are (x, y) with rising x; None for fewer than
    FEWEST_POINTS, or if the curve is nearly straight.
    """
    if len(points) < FEWEST_POINTS:
        return None
    (left, top), (right, bottom) = points[0], points[-1]
    depths = [(top - y) * (right - left) - (top - bottom) * (x - left) for x, y in points]
    deepest = max(depths)
    return points[depths.index(deepest)][0] if deepest > FLAT * (top - bottom) * (right - left) > 0 else None
