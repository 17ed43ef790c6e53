"""Memory: live bytes over a step by category, and the peak over the batch beside the budget."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.variant import DENSE
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Figure, FileSource, MarkedLine, Series, View
from moeprof.reporters.page.selection import variant_colour
from moeprof.reporters.sections.variants import variants_of

if TYPE_CHECKING:
    import pandas as pd

BYTES = Axis("live bytes", "bytes")
LIVE = FileSource("memory.parquet", "bytes of the category over time, from the first record of the step")
MOST_TIMES = 400
"""Times in a figure; of longer steps, each stretch is drawn at its largest total, so that the peak is kept."""


def memory(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of memory; nothing for a run that ran no model."""
    if run.record.recipe:
        yield from step_figure(run, metrics)
        yield from batch_figure(run, metrics)


def step_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Live bytes over one step; nothing without a memory pass."""
    views = [
        View({"phase": phase, "variant": variant}, series)
        for phase in metrics.phases
        for variant in latest_first(run)
        if (series := live_bytes(run, phase, variant))
    ]
    if views:
        yield Figure(
            "memory-step",
            "Live bytes over a step",
            step_sentence(run, metrics),
            Axis("time", "ns"),
            BYTES,
            views,
            caption="Live tensor bytes by category, stacked, from the first region of a step to its last. The times are those of the pass "
            "that records memory, which is slower than the pass that times steps.",
        )


def latest_first(run: Run) -> list[str]:
    """The variants from the last optimization to the baseline, and the dense twin at the end."""
    variants = variants_of(run)
    return [*(one for one in reversed(variants) if one != DENSE.label), *(one for one in variants if one == DENSE.label)]


def live_bytes(run: Run, phase: str, variant: str) -> list[Series]:
    """The bytes of every category over time, in the order of their appearance."""
    try:
        table = run.memory
    except MoeprofError:
        return []
    table = table[(table["phase"] == phase) & (table["variant"] == variant)]
    if table.empty:
        return []
    wide = (
        table.pivot_table(index="time_ns", columns="category", values="bytes", aggfunc="max", sort=False).fillna(0).sort_index()
    )
    wide = thinned(wide)
    times = [float(time) for time in wide.index - table["time_ns"].min()]
    return [
        Series(str(category).replace("_", " "), times, [float(size) for size in wide[category]], "area", source=LIVE)
        for category in wide.columns
    ]


def thinned(wide: "pd.DataFrame") -> "pd.DataFrame":
    """At most MOST_TIMES rows: of each stretch of rows the one with the largest total."""
    import numpy as np

    if len(wide) <= MOST_TIMES:
        return wide
    stretch = np.arange(len(wide)) * MOST_TIMES // len(wide)
    return wide.loc[wide.sum(axis=1).groupby(stretch).idxmax()]


def step_sentence(run: Run, metrics: RunMetrics) -> str:
    """The peak of a step of every phase and variant."""
    parts = []
    for phase in metrics.phases:
        peaks = {variant: metrics.or_none("memory_total_peak", phase=phase, variant=variant) for variant in variants_of(run)}
        known = [f"{format_bytes(peak)} ({variant})" for variant, peak in peaks.items() if peak is not None]
        if known:
            parts.append(f"Peak of a {phase} step: {', '.join(known)}.")
    return " ".join(parts) or "The live tensor bytes of a step, by category."


def batch_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """The peak over the batch; nothing without a search for the largest batch."""
    views = []
    for phase in metrics.phases:
        budget = metrics.or_none("memory_budget", phase=phase)
        curves = {
            variant: metrics.curve("memory_total_peak", "batch", phase=phase, variant=variant) for variant in variants_of(run)
        }
        series = [
            Series(variant, [size for size, _ in curve], [peak for _, peak in curve], colour=variant_colour(variant))
            for variant, curve in curves.items()
            if curve
        ]
        if series:
            views.append(View({"phase": phase}, series, marks=[] if budget is None else [MarkedLine("budget", budget)]))
    if views:
        yield Figure(
            "memory-batch",
            "Peak memory over the batch",
            "How the peak of a step grows with the batch, and where it meets the budget.",
            Axis("batch", logarithmic=True),
            Axis("peak memory", "bytes"),
            views,
            caption="Parameters and live tensor bytes at the peak of one step.",
        )
