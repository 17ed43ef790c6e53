"""Expert placement in a run: the predicted gain, the effect on every rank, and the cost of the move."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from moeprof.analysis.placement.balance_results import gain_at
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes, format_duration
from moeprof.reporters.cells import cell, interval, percent, plural
from moeprof.reporters.documents.balance import threshold
from moeprof.reporters.documents.document import Block, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.sections.traffic import MATRIX_RANKS

LAYERS = 12
"""The maximum number of layers that are shown without folding."""


def variant_of(run: Run, label: str) -> Variant:
    """The variant with this label, as the run recorded it."""
    known = {one.name for one in fields(Variant)}
    recorded: dict[str, Any] = next(dict(one) for one in run.record.variants if one["label"] == label)
    return Variant(**{name: value for name, value in recorded.items() if name in known})


def placed_variants(run: Run) -> list[Variant]:
    """Variants whose placement is not contiguous."""
    found = (variant_of(run, str(one["label"])) for one in run.record.variants)
    return [variant for variant in found if variant.placed]


def placement_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """All blocks of a phase; nothing if no variant has a placement."""
    for variant in placed_variants(run):
        yield Heading(f"Expert placement: {variant.label}", 3)
        yield Paragraph(" ".join([*promise(metrics, phase, variant), *move_sentence(metrics, phase, variant)]) or UNPLACED)
        yield rank_table(run, metrics, phase, variant)
        if metrics.distinct("layer", "avg_max_load_floor", phase=phase):
            yield layer_table(metrics, phase, variant)
        loads = list(load_blocks(run, metrics, phase, variant))
        few = len(metrics.distinct("layer", "rank_load_max_over_mean", phase=phase)) <= LAYERS
        yield from loads if few else [Details("tokens of every rank, layer by layer", loads)]


UNPLACED = "Placement is contiguous: there was no history to place experts by."


def shares(metrics: RunMetrics, phase: str, variant: Variant) -> tuple[float, float] | None:
    """Busiest-rank share of a step's choices, mean over steps: under contiguous placement, and placed."""
    before, after = (metrics.or_none("avg_max_load", phase=phase, variant=one.label) for one in (variant.unplaced, variant))
    return None if before is None or after is None else (before, after)


def promise(metrics: RunMetrics, phase: str, variant: Variant) -> Iterator[str]:
    """The share of the busiest rank on held-out steps, and whether the gain is worth a move."""
    gain, found = gain_at(metrics.at(variant=variant.label), phase), shares(metrics, phase, variant)
    history, floor, ideal = (
        metrics.or_none(metric, phase=phase, variant=variant.label)
        for metric in ("history_steps", "avg_max_load_floor", "ideal_load")
    )
    if gain is None or found is None or history is None or floor is None or ideal is None:
        return
    origin = "comes from a file" if variant.placement_file else f"is based on {int(history):,} steps"
    yield (
        f"The placement {origin} and is tested on {gain.steps:,} later ones: the busiest rank gets {percent(found[1])} of a step's choices "
        f"on average, {percent(found[0])} under contiguous placement (ideal {percent(ideal)}, floor without copies {percent(floor)})."
    )
    yield f"Gain: {interval(gain)}: {gain.verdict}. {threshold(gain, found[0], floor, 'rank')}"


def move_sentence(metrics: RunMetrics, phase: str, variant: Variant) -> Iterator[str]:
    """The size and time of the move, and its payback time."""
    experts, size, took = (
        metrics.or_none(metric, phase=phase, variant=variant.label) for metric in ("moved_experts", "moved_bytes", "move_time")
    )
    if experts is not None and size is not None and took is not None:
        yield (
            f"Move: {experts:,.0f} experts changed rank, {format_bytes(size)} in {format_duration(took)}. "
            f"{payoff(metrics, phase, variant)}"
        )


def payoff(metrics: RunMetrics, phase: str, variant: Variant) -> str:
    """The payback time of the move in steps, if the speed-up is measurable."""
    steps = metrics.or_none("payoff_steps", phase=phase, variant=variant.label)
    if steps is None:
        return "Steps are not shorter, so the move has no payback time."
    here = metrics.at(phase=phase, variant=variant.label, category=variant.unplaced.label)
    low = here.or_none("speedup_equal_batch_low")
    if low is None:
        return "The speed-up has no interval (fewer than 6 rounds), so no payback time is given."
    if low <= 1:
        return "No measurable speed-up, so the move has no payback time."
    number = max(1, round(steps))
    return f"The move pays off after {number:,} {plural(number, 'step', 'steps')}."


def rank_table(run: Run, metrics: RunMetrics, phase: str, variant: Variant) -> Table:
    """Tokens, waiting and memory of every rank, under contiguous placement and placed."""
    labels, rows = [variant.unplaced.label, variant.label], []
    for rank in range(run.record.ran.parallel.ranks):
        own = metrics.at(rank=str(rank))
        tokens = [cell(own.or_none("rank_tokens", phase=phase, variant=one), lambda count: f"{count:,.1f}") for one in labels]
        waits = [cell(own.or_none("comm_wait_time", phase=phase, variant=one), format_duration) for one in labels]
        peaks = [cell(own.or_none("memory_total_peak", phase=phase, variant=one), format_bytes) for one in labels]
        rows.append([str(rank), *tokens, *waits, *peaks])
    return Table(
        ["rank", "tokens", "placed", "waiting", "placed", "peak memory", "placed"],
        rows,
        caption=f"Every rank under {labels[0]}, and placed. tokens = choices that reach the rank's experts per layer and step (mean); "
        "waiting = for other ranks, per step; peak memory of one batch.",
    )


def layer_table(metrics: RunMetrics, phase: str, variant: Variant) -> Table:
    """Loads of the busiest rank with a row per layer."""
    before, after = variant.unplaced.label, variant.label
    rows = []
    for layer in [*metrics.distinct("layer", "avg_max_load_floor", phase=phase), ""]:
        floor = metrics.or_none("avg_max_load_floor", phase=phase, variant=after, layer=layer)
        loads = [
            cell(metrics.or_none(metric, phase=phase, variant=one, layer=layer), percent)
            for metric in ("avg_max_load", "max_load")
            for one in (before, after)
        ]
        moved = cell(metrics.or_none("moved_experts", phase=phase, variant=after, layer=layer), lambda count: f"{count:,.0f}")
        rows.append([layer or "all", cell(floor, percent), *loads, moved])
    return Table(
        ["layer", "floor", "avg max", "placed", "max load", "placed", "moved"],
        rows,
        caption="Busiest-rank share of a step's choices: avg max = mean over test steps, max load = largest test step; floor = lower bound "
        "without copies; moved = experts that changed rank.",
    )


def load_blocks(run: Run, metrics: RunMetrics, phase: str, variant: Variant) -> Iterator[Block]:
    """Mean tokens of every rank per layer and step, under contiguous placement and placed."""
    num_ranks = run.record.ran.parallel.ranks
    ranks = [metrics.at(rank=str(rank)) for rank in range(num_ranks)]
    layers, labels = metrics.distinct("layer", "rank_load_max_over_mean", phase=phase), (variant.unplaced.label, variant.label)
    caption = "Choices that reach the rank's experts per layer and step, mean over test steps."
    tokens = {
        (label, layer): [own.or_none("rank_tokens", phase=phase, variant=label, layer=layer) for own in ranks]
        for label in labels
        for layer in layers
    }
    if num_ranks <= MATRIX_RANKS:
        rows = [
            [layer, label, *(cell(count, lambda tokens: f"{tokens:,.1f}") for count in tokens[label, layer])]
            for layer in layers
            for label in labels
        ]
        yield Table(["layer", "variant", *(f"rank {rank}" for rank in range(num_ranks))], rows, labels=2, caption=caption)
        return
    top = max((count or 0.0 for counts in tokens.values() for count in counts), default=0.0)
    for label in labels if top else ():
        values = [[count or 0.0 for count in tokens[label, layer]] for layer in layers]
        names = [f"layer {layer}" for layer in layers]
        yield HeatMap(
            f"Tokens of {num_ranks} ranks under {label}", names, values, top, f"{caption} Scale: blank 0 … █ {top:,.1f}."
        )


def placement_line(run: Run, metrics: RunMetrics, phase: str, label: str) -> Iterator[str]:
    """Gain, move and payback time in one statement, for the verdict."""
    variant = variant_of(run, label)
    gain, found = gain_at(metrics.at(variant=variant.label), phase), shares(metrics, phase, variant)
    ideal, size, took = (
        metrics.or_none(metric, phase=phase, variant=label) for metric in ("ideal_load", "moved_bytes", "move_time")
    )
    if gain is None or found is None or ideal is None or size is None or took is None:
        return
    yield (
        f"Load balance ({phase}): busiest-rank share {percent(found[0])} → {percent(found[1])} (ideal {percent(ideal)}), a gain of "
        f"{interval(gain)} on held-out steps: {gain.verdict}. Moving {format_bytes(size)} took {format_duration(took)}. "
        f"{payoff(metrics, phase, variant)}"
    )
