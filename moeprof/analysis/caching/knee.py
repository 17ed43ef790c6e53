"""The knee of a curve: where more slots begin to bring less than they did on average."""

from collections.abc import Sequence

FEWEST = 3
"""Points; two are a straight line."""

FLAT = 0.05
"""Of the drop from end to end: a curve that comes no further below the line is as good as straight."""


def knee(points: Sequence[tuple[int, float]]) -> int | None:
    """The x of the point that lies deepest below the line from the first point to the last, the smallest of several.

    Kneedle's point for a falling curve without smoothing (Satopaa, Albrecht, Irwin, Raghavan: Finding a "Kneedle" in a
    Haystack, ICDCSW 2011). `points` (x, y) with x rising; None for fewer than 3, or where the curve is nearly straight.
    """
    if len(points) < FEWEST:
        return None
    (left, top), (right, bottom) = points[0], points[-1]
    depths = [(top - y) * (right - left) - (top - bottom) * (x - left) for x, y in points]
    deepest = max(depths)
    return points[depths.index(deepest)][0] if deepest > FLAT * (top - bottom) * (right - left) > 0 else None
