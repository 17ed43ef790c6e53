"""The search for the batch with the largest throughput within a memory budget, and the points that it tried.

Throughput rises with the batch to a maximum and then falls. A dip between two faster batches is noise, as is a fall that is gone when
it is measured again.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

End = Literal["memory", "throughput", "largest"]

LARGEST_BATCH = 2**20
FAR = 16
"""Batches beyond this multiple of the best batch are not weighed."""
FALLS = 2
"""The batch stops growing after this many points in a row without a gain."""
NOISE = 0.02
"""A smaller relative rise does not count: on a plateau, chance would let the search go on without end."""
DIP = 0.10
"""A batch that is slower by this fraction than a smaller and a larger one is a dip."""
REPEATS = 2
"""Dips are measured again up to so many times."""
RESOLUTION = 8
"""The largest batch that fits is found to within one part in this many."""


@dataclass(frozen=True)
class Point:
    """One batch that was tried; without a throughput it did not fit, or was only weighed."""

    batch: int
    throughput: float | None = None
    """Tokens per second."""
    memory_bytes: int | None = None
    """Most live bytes, weights included; None if the attempt was cut short."""
    why: str = ""
    """Why the batch did not fit."""
    weighed: bool = False
    """The batch fits and was not timed, because larger batches were no faster any more."""

    @property
    def fits(self) -> bool:
        """Whether the memory was sufficient."""
        return self.throughput is not None or self.weighed


@dataclass(frozen=True)
class Search:
    """Every point, by batch, and why there are no larger ones."""

    points: tuple[Point, ...]
    ended: End

    @property
    def best(self) -> Point | None:
        """The point with the largest throughput; None if not even one sequence fits."""
        return fastest(self.points)

    @property
    def max_batch(self) -> int:
        """The largest batch that was seen to fit; 0 if none did."""
        return max((point.batch for point in self.points if point.fits), default=0)


def search(
    measure: Callable[[int], Point],
    weigh: Callable[[int], Point] | None = None,
    largest: int = LARGEST_BATCH,
    again: Callable[[int], Point] | None = None,
) -> Search:
    """Doubles from 1 until a batch does not fit or throughput falls twice in a row, then refines the best and the largest batch.

    `again`, if given, measures a batch that fits once more, together with its earlier rounds: what ended the growth, and dips.
    If throughput fell first, `weigh`, if given, goes on without timing until memory is the limit too, or the batch is far beyond
    the best one.
    """
    points: dict[int, Point] = {}
    ended = grow(points, measure, largest, timed=True, again=again)
    best = fastest(points.values())
    if ended == "throughput" and weigh is not None and best is not None:
        weighed = grow(points, weigh, min(largest, FAR * best.batch), timed=False)
        ended = "memory" if weighed == "memory" else ended
    if best is not None:
        too_large = min((point.batch for point in points.values() if not point.fits), default=largest + 1)
        for batch in (best.batch * 3 // 4, best.batch * 3 // 2):
            if 0 < batch < too_large and batch not in points:
                points[batch] = measure(batch)
    if again is not None:
        fill_dips(points, again)
    return Search(tuple(points[batch] for batch in sorted(points)), ended)


def grow(
    points: dict[int, Point],
    how: Callable[[int], Point],
    largest: int,
    *,
    timed: bool,
    again: Callable[[int], Point] | None = None,
) -> End:
    """Adds points until one ends the growth; batches that are known are not tried again."""

    def fits(batch: int) -> bool:
        if batch not in points:
            points[batch] = how(batch)
        return points[batch].fits

    for batch in doubling(largest):
        if not fits(batch):
            largest_fitting(fits, batch // 2, batch)
            return "memory"
        if timed and fallen(list(points.values())) and not (again and risen(points, again)):
            return "throughput"
    return "largest"


def fastest(points: Iterable[Point]) -> Point | None:
    """The point with the largest throughput."""
    return max(
        (point for point in points if point.throughput is not None), key=lambda point: point.throughput or 0.0, default=None
    )


def doubling(largest: int) -> Iterator[int]:
    """1, 2, 4 ... up to `largest`."""
    batch = 1
    while batch <= largest:
        yield batch
        batch *= 2


def fallen(points: list[Point]) -> bool:
    """Whether the last points, in the order of trying, bring nothing beyond the ones before them."""
    throughputs = [point.throughput or 0.0 for point in points]
    return len(points) > FALLS and max(throughputs[-FALLS:]) < max(throughputs[:-FALLS]) * (1 + NOISE)


def risen(points: dict[int, Point], again: Callable[[int], Point]) -> bool:
    """Measures the best batch and the last ones again; whether throughput has not fallen after all."""
    best = fastest(points.values())
    for batch in sorted({*([best.batch] if best else []), *list(points)[-FALLS:]}):
        points[batch] = again(batch)
    return not fallen(list(points.values()))


def fill_dips(points: dict[int, Point], again: Callable[[int], Point]) -> None:
    """Measures every dip again, and the best batch with its neighbours, as long as there is a dip."""
    for _ in range(REPEATS):
        curve = [(batch, found) for batch in sorted(points) if (found := points[batch].throughput) is not None]
        found_dips = {batch for batch, _ in dips(curve)}
        if not found_dips:
            return
        top = max(range(len(curve)), key=lambda index: curve[index][1])
        for batch in sorted(found_dips | {batch for batch, _ in curve[max(top - 1, 0) : top + 2]}):
            points[batch] = again(batch)


def dips(curve: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Batches that are slower by DIP or more than a smaller and a larger one, each with its depth as a fraction."""
    rates = [rate for _, rate in curve]
    depths = [
        (batch, 1 - rate / min(max(rates[:index]), max(rates[index + 1 :])))
        for index, (batch, rate) in list(enumerate(curve))[1:-1]
    ]
    return [(batch, depth) for batch, depth in depths if depth >= DIP]


def largest_fitting(fits: Callable[[int], bool], low: int, high: int) -> None:
    """Halves the gap between a batch that fits (or 0) and one that does not."""
    while high - low > max(1, low // RESOLUTION):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
