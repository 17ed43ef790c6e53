"""Where experts lie under a placement: what it promised, what it brought every rank, and what the move cost."""

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from moeprof.analysis.placement.balance_results import gain_at
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes, format_duration
from moeprof.reporters.cells import cell, percent
from moeprof.reporters.documents.balance import change, interval
from moeprof.reporters.documents.document import Block, Details, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.sections.traffic import MATRIX_RANKS

LAYERS = 12
"""More of them are not for everybody."""


def variant_of(run: Run, label: str) -> Variant:
    """As the run recorded it."""
    known = {one.name for one in fields(Variant)}
    told: dict[str, Any] = next(dict(one) for one in run.record.variants if one["label"] == label)
    return Variant(**{name: value for name, value in told.items() if name in known})


def placed_variants(run: Run) -> list[Variant]:
    """Those whose experts do not lie contiguously."""
    found = (variant_of(run, str(one["label"])) for one in run.record.variants)
    return [variant for variant in found if variant.placed]


def placement_blocks(run: Run, metrics: RunMetrics, phase: str) -> Iterator[Block]:
    """All of a phase; nothing where nobody placed experts."""
    for variant in placed_variants(run):
        yield Heading(f"Where experts lie under {variant.label}", 3)
        yield Paragraph(" ".join([*promise(metrics, phase, variant), *move_sentence(metrics, phase, variant)]) or NOTHING)
        yield rank_table(run, metrics, phase, variant)
        if metrics.distinct("layer", "avg_max_load_floor", phase=phase):
            yield layer_table(metrics, phase, variant)
        loads = list(load_blocks(run, metrics, phase, variant))
        few = len(metrics.distinct("layer", "rank_load_max_over_mean", phase=phase)) <= LAYERS
        yield from loads if few else [Details("tokens of every rank, layer by layer", loads)]


NOTHING = "Experts lie as under contiguous placement: nothing was known that could place them."


def shares(metrics: RunMetrics, phase: str, variant: Variant) -> tuple[float, float] | None:
    """Of a step's choices at its busiest rank, mean over steps: contiguous, placed."""
    before, after = (metrics.or_none("avg_max_load", phase=phase, variant=one.label) for one in (variant.unplaced, variant))
    return None if before is None or after is None else (before, after)


def promise(metrics: RunMetrics, phase: str, variant: Variant) -> Iterator[str]:
    """What the placement does to the busiest rank, and whether that is worth a move."""
    gain, found = gain_at(metrics.at(variant=variant.label), phase), shares(metrics, phase, variant)
    history, floor, ideal = (
        metrics.or_none(metric, phase=phase, variant=variant.label)
        for metric in ("history_steps", "avg_max_load_floor", "ideal_load")
    )
    if gain is None or found is None or history is None or floor is None or ideal is None:
        return
    made = "comes from a file" if variant.placement_file else f"was made from {int(history):,} steps"
    yield (
        f"The placement {made} and is judged on {gain.steps:,} later ones: the busiest rank takes {percent(found[1])} of a step's "
        f"choices in the mean, {percent(found[0])} under contiguous placement (ideal {percent(ideal)}, floor without copies "
        f"{percent(floor)})."
    )
    yield f"Gain: {interval(gain)}: {gain.verdict}. {change(gain, found[0], floor)}"


def move_sentence(metrics: RunMetrics, phase: str, variant: Variant) -> Iterator[str]:
    """What the weights took to get there, and when that is paid for."""
    experts, size, took = (
        metrics.or_none(metric, phase=phase, variant=variant.label) for metric in ("moved_experts", "moved_bytes", "move_time")
    )
    if experts is not None and size is not None and took is not None:
        yield (
            f"The move: {experts:,.0f} experts came to another rank, {format_bytes(size)} in {format_duration(took)}. "
            f"{payoff(metrics, phase, variant)}"
        )


def payoff(metrics: RunMetrics, phase: str, variant: Variant) -> str:
    """After how many steps, as far as the rounds can tell."""
    steps = metrics.or_none("payoff_steps", phase=phase, variant=variant.label)
    if steps is None:
        return "It does not pay for itself: steps are not shorter."
    low = metrics.or_none("speedup_equal_batch_low", phase=phase, variant=variant.label, category=variant.unplaced.label)
    doubt = ", if steps are shorter at all: the rounds cannot show it" if low is None or low <= 1 else ""
    return f"It has paid for itself after {max(1, round(steps)):,} steps{doubt}."


def rank_table(run: Run, metrics: RunMetrics, phase: str, variant: Variant) -> Table:
    """Tokens, waiting and memory of every rank, before and after."""
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
        caption=f"Every rank under {labels[0]}, and placed. Tokens: choices that reach its experts in a layer's step, mean over layers; "
        "waiting for other ranks in a step; memory at the peak of one batch.",
    )


def layer_table(metrics: RunMetrics, phase: str, variant: Variant) -> Table:
    """Loads of the busiest rank, layer by layer."""
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
        caption="Share of a step's choices at its busiest rank, mean (avg max) and largest of the test steps; floor: what no placement "
        "without copies can pass; moved: experts that came to another rank.",
    )


def load_blocks(run: Run, metrics: RunMetrics, phase: str, variant: Variant) -> Iterator[Block]:
    """Mean tokens of every rank in each layer's step, before and after."""
    num_ranks = run.record.ran.parallel.ranks
    ranks = [metrics.at(rank=str(rank)) for rank in range(num_ranks)]
    layers, labels = metrics.distinct("layer", "rank_load_max_over_mean", phase=phase), (variant.unplaced.label, variant.label)
    caption = "Choices that reach a rank's experts in a layer's step, mean over test steps."
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
        yield HeatMap(f"Tokens of {num_ranks} ranks under {label}", names, values, top, f"{caption} Full shade: {top:,.1f}.")


def placement_line(run: Run, metrics: RunMetrics, phase: str, label: str) -> Iterator[str]:
    """The same in a sentence, for the verdict."""
    variant = variant_of(run, label)
    gain, found = gain_at(metrics.at(variant=variant.label), phase), shares(metrics, phase, variant)
    ideal, size, took = (
        metrics.or_none(metric, phase=phase, variant=label) for metric in ("ideal_load", "moved_bytes", "move_time")
    )
    if gain is None or found is None or ideal is None or size is None or took is None:
        return
    yield (
        f"Balance ({phase}): the busiest rank takes {percent(found[1])} of a step's choices instead of {percent(found[0])} (ideal "
        f"{percent(ideal)}), a gain of {interval(gain)} on steps that the placement has not seen: {gain.verdict}. Moving "
        f"{format_bytes(size)} took {format_duration(took)}. {payoff(metrics, phase, variant)}"
    )
