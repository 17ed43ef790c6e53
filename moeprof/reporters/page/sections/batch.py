"""The batch: throughput over it, where it stops to fit, and what more memory buys."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.timing import timings_of
from moeprof.records.metrics.number import RecordedNumber
from moeprof.records.metrics.point import parse_point
from moeprof.records.run.raw_tables import BATCHES, SWEEP
from moeprof.records.run.run import Run
from moeprof.reporters.cells import rate
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Figure, FileSource, MarkedLine, Series, View
from moeprof.reporters.page.selection import variant_colour
from moeprof.reporters.sections.variants import is_lower_bound, variants_of

THROUGHPUT = Axis("throughput", "tokens/s")
RANGE = FileSource("rounds.parquet", "tokens / time of the slowest and of the fastest round of the search at this batch")
REFUSED = FileSource("batches.parquet", "smallest batch that does not fit")
ENDED = FileSource("batches.parquet", "largest batch that was tried")


@dataclass(frozen=True)
class BatchPoint:
    """A batch of a variant with its peak memory and its throughput."""

    batch: int
    memory: RecordedNumber
    throughput: RecordedNumber


def batch(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of the search for the largest batch; nothing without it."""
    if run.record.recipe:
        yield from throughput_figure(run, metrics)
        yield from front_figure(run, metrics)


def throughput_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Throughput over the batch with the range of its rounds, the best batches, and the ends of the search."""
    speeds = round_speeds(run)
    views = [
        View(
            {"phase": phase},
            series,
            marks=[mark for variant in variants_of(run) for mark in end_marks(run, metrics, phase, variant)],
        )
        for phase in metrics.phases
        if (
            series := [each for variant in variants_of(run) for each in throughput_series(run, metrics, phase, variant, speeds)]
        )
    ]
    if views:
        yield Figure(
            "batch-throughput",
            "Throughput over the batch",
            best_sentence(run, metrics),
            Axis("batch", logarithmic=True),
            THROUGHPUT,
            views,
            caption="Lines: medians of the short rounds of the search; bands: from the slowest to the fastest of them. Separate dots: "
            "the best batch within the memory budget, measured again in interleaved rounds, with the 95% interval of the median.",
        )


def throughput_series(
    run: Run, metrics: RunMetrics, phase: str, variant: str, speeds: dict[tuple[str, str, int], list[float]]
) -> Iterator[Series]:
    """The curve of a variant, and its best batch."""
    colour, here = variant_colour(variant), metrics.at(phase=phase, variant=variant)
    curve = here.curve("throughput", "batch")
    if not curve:
        return
    sizes, rounds = [size for size, _ in curve], [speeds.get((phase, variant, size), []) for size, _ in curve]
    whole = all(rounds)
    yield Series(
        variant,
        sizes,
        [speed for _, speed in curve],
        low=[min(each) for each in rounds] if whole else (),
        high=[max(each) for each in rounds] if whole else (),
        colour=colour,
        source=RANGE if whole else None,
    )
    best, speed, low, high = map(here.or_none, ("best_batch", "max_throughput", "max_throughput_low", "max_throughput_high"))
    if best and speed is not None:
        ends = ([low], [high]) if low is not None and high is not None else ((), ())
        yield Series(f"{variant}, best batch", [best], [speed], "dots", low=ends[0], high=ends[1], colour=colour)


def round_speeds(run: Run) -> dict[tuple[str, str, int], list[float]]:
    """Tokens per second of every round of the search, by phase, variant and batch."""
    return {
        (phase, timing.variant, int(parse_point(point)["batch"])): timing.throughputs
        for (phase, point), timings in timings_of(run, SWEEP).items()
        for timing in timings
    }


def end_marks(run: Run, metrics: RunMetrics, phase: str, variant: str) -> Iterator[MarkedLine]:
    """Where the batches of a variant stop to fit, or where the search ended before."""
    table = run.raw(BATCHES).to_pandas()
    table = table[(table["phase"] == phase) & (table["variant"] == variant)]
    refused = table[~table["fits"].astype(bool)]
    if len(refused):
        first = refused.sort_values("batch").iloc[0]
        yield MarkedLine(
            f"{variant}: {first['reason'] or 'does not fit'},", float(first["batch"]), across=False, source=REFUSED
        )
    elif len(table) and is_lower_bound(metrics, phase, variant):
        yield MarkedLine(f"{variant}: the search ended,", float(table["batch"].max()), across=False, source=ENDED)


def best_sentence(run: Run, metrics: RunMetrics) -> str:
    """The largest throughput of every phase and variant, and its batch."""
    parts = []
    for phase in metrics.phases:
        for variant in variants_of(run):
            best, speed = (metrics.or_none(name, phase=phase, variant=variant) for name in ("best_batch", "max_throughput"))
            if best and speed is not None:
                parts.append(f"{phase}, {variant}: {rate(speed)} tokens/s at batch {best:,.0f}.")
    return " ".join(parts) or "Throughput at every batch that was tried."


def front_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Throughput over peak memory, and the Pareto front of both."""
    views = []
    for phase in metrics.phases:
        points = {variant: batch_points(metrics.at(phase=phase, variant=variant)) for variant in variants_of(run)}
        budget = metrics.or_none("memory_budget", phase=phase)
        marks = [] if budget is None else [MarkedLine("budget", budget, across=False)]
        series = [front_series(variant, found) for variant, found in points.items() if found]
        front = pareto(point for found in points.values() for point in found)
        if len(front) > 1:
            line = Series(
                "Pareto front", [point.memory for point in front], [point.throughput for point in front], "rule", colour="ink"
            )
            views.append(View({"phase": phase}, [line, *series], marks=marks))
    if views:
        yield Figure(
            "batch-front",
            "Throughput over peak memory",
            "What more memory buys: a dot for every batch; no other dot has both more throughput and less memory than one on the line.",
            Axis("peak memory", "bytes", logarithmic=True),
            THROUGHPUT,
            views,
        )


def front_series(variant: str, points: Sequence[BatchPoint]) -> Series:
    """The batches of a variant as dots."""
    memory, speed = [point.memory for point in points], [point.throughput for point in points]
    return Series(
        variant, memory, speed, "dots", remarks=[f"batch {point.batch}" for point in points], colour=variant_colour(variant)
    )


def batch_points(here: RunMetrics) -> list[BatchPoint]:
    """Batches of which memory and throughput are known."""
    memory, speeds = dict(here.curve("memory_total_peak", "batch")), dict(here.curve("throughput", "batch"))
    return [BatchPoint(size, memory[size], speeds[size]) for size in sorted(set(memory) & set(speeds))]


def pareto(points: Iterator[BatchPoint]) -> list[BatchPoint]:
    """The points that have more throughput than every point with as much memory or less."""
    front: list[BatchPoint] = []
    for point in sorted(points, key=lambda each: (each.memory, -each.throughput)):
        if not front or point.throughput > front[-1].throughput:
            front.append(point)
    return front
