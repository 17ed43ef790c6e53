"""The knee is where a falling curve lies deepest below the line between its ends."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from moeprof.analysis.caching.knee import knee


def test_the_corner_of_two_straight_lines_is_the_knee() -> None:
    corner = [(size, 100 - 10 * min(size, 7) - 0.1 * max(size - 7, 0)) for size in range(1, 31)]
    assert knee(corner) == 7


def test_kneedles_own_example_has_its_knee_at_a_fifth() -> None:
    # Satopaa et al. 2011, section III: the knee of y = -1 / (x + 0.1) + 5 on [0, 1] is near 0.22. Here it falls, in hundredths.
    curve = [(step, 1 / (step / 100 + 0.1)) for step in range(101)]
    assert knee(curve) == pytest.approx(22, abs=2)


@pytest.mark.parametrize(
    "points",
    [
        [],
        [(1, 0.9)],
        [(1, 0.9), (2, 0.1)],
        [(size, 1 - size / 10) for size in range(1, 9)],
        [(size, 0.5) for size in range(1, 9)],
        [(size, size / 10) for size in range(1, 9)],
        [(1, 1.0), (2, 0.99), (3, 0.9), (4, 0.0)],
    ],
)
def test_few_points_and_curves_without_a_bend_have_no_knee(points: list[tuple[int, float]]) -> None:
    assert knee(points) is None


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=30), st.integers(1, 9), st.integers(0, 100))
def test_the_knee_does_not_depend_on_the_units_of_y(heights: list[int], factor: int, shift: int) -> None:
    points = list(enumerate(sorted(heights, reverse=True), 1))
    assert knee([(x, y * factor + shift) for x, y in points]) == knee(points)


@given(st.lists(st.integers(0, 1000), min_size=3, max_size=30))
def test_no_point_lies_deeper_below_the_line_than_the_knee(heights: list[int]) -> None:
    points = list(enumerate(sorted(heights, reverse=True), 1))
    found = knee(points)
    assume(found is not None)
    (left, top), (right, bottom) = points[0], points[-1]
    line = {x: top + (bottom - top) * (x - left) / (right - left) for x, _ in points}
    depths = {x: line[x] - y for x, y in points}
    assert depths[found] == pytest.approx(max(depths.values()))
    assert depths[found] > 0.05 * (top - bottom)
