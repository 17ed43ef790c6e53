"""Ranks as they ran: their loads before and after a placement, what they send each other, and how long they wait."""

from collections.abc import Iterator

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.communication import bytes_by_pair
from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Figure, FileSource, HeatCells, Series, View
from moeprof.reporters.page.sections.before_and_after import COLOURS, LOAD, beside, largest
from moeprof.reporters.page.selection import variant_colour
from moeprof.reporters.sections.placement import placed_variants, promise
from moeprof.reporters.sections.variants import variants_of

RANK_TOKENS = FileSource("metrics.csv", "log2(rank_tokens / its mean over ranks), at least -10")
PAIRS = FileSource("traffic.parquet", "bytes by source and destination / steps, mean over rounds")


def ranks(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of the ranks of a run."""
    yield from load_figure(run, metrics)
    yield from traffic_figure(run, metrics)
    yield from waiting_figure(run, metrics)


def load_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Loads of all layers and ranks before and after every placement; nothing if experts were not placed."""
    views = [
        view
        for phase in metrics.phases
        for variant in placed_variants(run)
        for view in load_views(run, metrics.at(phase=phase), variant)
    ]
    if views:
        yield Figure(
            "placement-loads",
            "Load of every rank and layer, before and after",
            "Left: contiguous placement; right: the placement of the variant.",
            Axis("rank"),
            LOAD,
            views,
            rows=Axis("layer"),
            caption="Choices that reach the experts of a rank, mean over the steps that variants are compared on. " + COLOURS,
        )


def load_views(run: Run, here: RunMetrics, variant: Variant) -> Iterator[View]:
    """The loads of a variant; nothing if its ranks have none."""
    phase = here.scope["phase"]
    before, after = (rank_loads(run, here.at(variant=one.label)) for one in (variant.unplaced, variant))
    layers = [layer for layer in before if layer in after]
    if layers:
        loads = [before[layer] for layer in layers], [after[layer] for layer in layers]
        words = f"Most loaded rank of any layer: {largest(layers, loads[0])} before, {largest(layers, loads[1])} after."
        readout = " ".join([words, *promise(here, phase, variant)])
        yield View({"phase": phase, "variant": variant.label}, heat=beside(layers, *loads, RANK_TOKENS), readout=readout)


def rank_loads(run: Run, here: RunMetrics) -> dict[str, list[float]]:
    """The choices that reach every rank, by layer; layers without them are left out."""
    found = {
        layer: [here.or_none("rank_tokens", layer=layer, rank=str(rank)) for rank in range(run.record.ran.parallel.ranks)]
        for layer in here.distinct("layer", "rank_tokens")
    }
    return {
        layer: [load for load in loads if load is not None]
        for layer, loads in found.items()
        if None not in loads and any(loads)
    }


def traffic_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Bytes from rank to rank; nothing without a traffic pass."""
    views = []
    for phase in metrics.phases:
        for variant in variants_of(run):
            heat = pair_cells(run, phase, variant)
            views += [View({"phase": phase, "variant": variant}, heat=heat)] if heat else []
    if views:
        yield Figure(
            "placement-traffic",
            "Bytes from rank to rank",
            traffic_sentence(run, metrics),
            Axis("to rank"),
            Axis("bytes per step", "bytes"),
            views,
            rows=Axis("from rank"),
            caption="Both ways, over all layers; on the diagonal, rows that stay on their rank.",
        )


def pair_cells(run: Run, phase: str, variant: str) -> HeatCells | None:
    """Bytes of a step from each rank to each; None if they were not recorded."""
    try:
        found = run.traffic.of(phase, variant)
    except MoeprofError:
        return None
    if found is None:
        return None
    bytes_NN = bytes_by_pair(found).tolist()
    names = [str(rank) for rank in range(len(bytes_NN))]
    return HeatCells(names, names, bytes_NN, PAIRS, low=0.0)


def traffic_sentence(run: Run, metrics: RunMetrics) -> str:
    """What ranks send to others in a step, by phase and variant."""
    parts = []
    for phase in metrics.phases:
        sent = {one: metrics.or_none("comm_bytes", phase=phase, variant=one, category="crossing") for one in variants_of(run)}
        found = ", ".join(f"{format_bytes(size)} ({one})" for one, size in sent.items() if size is not None)
        parts += [f"Sent to other ranks in a {phase} step: {found}."] if found else []
    return " ".join(parts) or "What ranks send each other in a step."


def waiting_figure(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """How long every rank waits for the others; nothing without a traffic pass."""
    views = []
    for phase in metrics.phases:
        series, words = [], []
        for variant in variants_of(run):
            here = metrics.at(phase=phase, variant=variant)
            waits = {
                str(rank): time
                for rank in range(run.record.ran.parallel.ranks)
                if (time := here.or_none("comm_wait_time", rank=str(rank))) is not None
            }
            if waits:
                series.append(Series(variant, list(waits), list(waits.values()), "bars", colour=variant_colour(variant)))
                longest = max(waits, key=lambda rank: waits[rank])
                words.append(f"{duration(waits[longest])} on rank {longest} ({variant})")
        views += [View({"phase": phase}, series, readout=f"Longest: {', '.join(words)}.")] if series else []
    if views:
        yield Figure(
            "placement-waits",
            "Time that every rank waits for the others",
            "A rank that waits has less to do than others, or a faster link.",
            Axis("rank"),
            Axis("waiting per step", "ns"),
            views,
            caption="Medians over rounds, all collectives of a step: the part of the time of a collective beyond the transfer.",
        )
