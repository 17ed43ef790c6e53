"""Expert buffering as it ran: what slots cost, which layers miss, and which experts were resident when."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.errors import MoeprofError
from moeprof.records.run.run import Run
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.reporters.cells import percent
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Facets, Figure, FileSource, HeatCells, Series, View
from moeprof.reporters.page.selection import variant_colour
from moeprof.reporters.sections.buffers import buffered_variants, grouped_residency, residency

MOST_ROWS, MOST_COLUMNS = 64, 96
"""The size of a residency map; more experts or steps are shown in groups."""

MISSES = Axis("miss rate", "fraction")
RESIDENT = FileSource("loads.parquet", "share of the experts and steps of a cell after which the expert is resident")

BufferedVariants = dict[str, list[str]]
"""By phase: the labels of variants that loaded experts."""


def buffering(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of the variants that loaded experts; nothing if none did."""
    variants = {phase: found for phase in metrics.phases if (found := buffered_variants(run, metrics, phase))}
    if variants:
        yield from latency_figure(metrics, variants)
        yield from layer_figure(metrics, variants)
        yield from slots_figure(metrics, variants)
        yield from residency_figure(run, variants)


def latency_figure(metrics: RunMetrics, variants: BufferedVariants) -> Iterator[PageBlock]:
    """Time per step over the memory of weights, a point per number of slots; nothing without --sweep-slots."""
    views = []
    for phase, labels in variants.items():
        series = [each for label in labels if (each := latency_series(metrics.at(phase=phase, variant=label), label)).values]
        if series:
            views.append(View({"phase": phase}, series))
    if views:
        yield Figure(
            "caching-latency",
            "Time per step over the memory of weights",
            "What fewer slots save and cost: a point for every number of slots that was measured.",
            Axis("weights per rank", "bytes"),
            Axis("time per step", "ns"),
            views,
        )


def latency_series(here: RunMetrics, label: str) -> Series:
    """The measured numbers of slots of a variant, with their miss rates as remarks."""
    latencies, sizes = dict(here.curve("step_latency", "slots")), dict(here.curve("memory_static", "slots", phase=""))
    rates = dict(here.curve("miss_rate", "slots"))
    slots = sorted(set(latencies) & set(sizes), key=lambda number: sizes[number])
    remarks = [
        f"{number} slots" + (f", {percent(rates[number])} of accesses miss" if number in rates else "") for number in slots
    ]
    return Series(
        label,
        [sizes[number] for number in slots],
        [latencies[number] for number in slots],
        remarks=remarks,
        colour=variant_colour(label),
    )


def layer_figure(metrics: RunMetrics, variants: BufferedVariants) -> Iterator[PageBlock]:
    """Miss rate of every layer with the slots of the run."""
    views = []
    for phase, labels in variants.items():
        series = []
        for label in labels:
            here = metrics.at(phase=phase, variant=label)
            rates = {
                layer: rate
                for layer in here.distinct("layer", "miss_rate")
                if (rate := here.or_none("miss_rate", layer=layer)) is not None
            }
            series.append(Series(label, list(rates), list(rates.values()), "bars", colour=variant_colour(label)))
        views.append(View({"phase": phase}, series))
    yield Figure(
        "caching-layers",
        "Miss rate by layer",
        miss_sentence(metrics, variants),
        Axis("layer"),
        MISSES,
        views,
        caption="Accesses to experts that were in no slot, of all recorded batches, from a cold start; over all domains and ranks.",
    )


def miss_sentence(metrics: RunMetrics, variants: BufferedVariants) -> str:
    """How many accesses miss in every phase and variant."""
    return " ".join(
        f"{phase}, {label}: {percent(rate)} of accesses miss."
        for phase, labels in variants.items()
        for label in labels
        if (rate := metrics.or_none("miss_rate", phase=phase, variant=label)) is not None
    )


def slots_figure(metrics: RunMetrics, variants: BufferedVariants) -> Iterator[PageBlock]:
    """Miss rate of every layer with every measured number of slots; nothing without --sweep-slots."""
    views = []
    for phase, labels in variants.items():
        for label in labels:
            heat = slots_cells(metrics.at(phase=phase, variant=label))
            views += [View({"phase": phase, "variant": label}, heat=heat)] if heat.columns else []
    if views:
        yield Figure(
            "caching-slots",
            "Miss rate by layer and slots per layer",
            "Which layers need more slots than others.",
            Axis("slots per layer"),
            MISSES,
            views,
            rows=Axis("layer"),
        )


def slots_cells(here: RunMetrics) -> HeatCells:
    """The miss rates of all layers, a column per number of slots that has rates of single layers."""
    layers = here.distinct("layer", "miss_rate")
    sizes = sorted({int(row.swept["slots"]) for row in here.rows("miss_rate") if row.key.layer and "slots" in row.swept})
    rates = [[here.or_none("miss_rate", layer=layer, point=f"slots={size}") for size in sizes] for layer in layers]
    return HeatCells(layers, [str(size) for size in sizes], rates, low=0.0, high=1.0)


def residency_figure(run: Run, variants: BufferedVariants) -> Iterator[PageBlock]:
    """Which experts were resident over the steps, for every variant and layer; nothing if the log of loads is missing."""
    try:
        recorded = run.loads.of(point="")
    except MoeprofError:
        return
    views = [
        View(facets, heat=residency_cells(loads, run.record.ran.model.experts))
        for phase, labels in variants.items()
        for label in labels
        for facets, loads in by_layer(recorded.of(phase=phase, variant=label), {"phase": phase, "variant": label})
    ]
    if views:
        yield residency_over_time(
            "Experts that are resident, over time",
            "Bands are experts that stay in their slots; short marks are experts that leave before they are used again.",
            views,
            "The first recorded batches, from a cold start, in the order of execution.",
        )


def residency_over_time(title: str, sentence: str, views: Sequence[View], caption: str) -> Figure:
    """The figure of residency maps, a view for each layer."""
    return Figure(
        "caching-residency",
        title,
        sentence,
        Axis("step"),
        Axis("share of time resident", "fraction"),
        views,
        rows=Axis("expert"),
        caption=f"{caption} Neighbouring experts and steps are one cell if there are more than {MOST_ROWS} experts or {MOST_COLUMNS} "
        "steps.",
    )


def by_layer(loads: ExpertLoads, facets: Facets) -> Iterator[tuple[Facets, ExpertLoads]]:
    """The loads of every layer and rank, with the selectors that lead to them."""
    several = len(set(loads.column("rank").tolist())) > 1
    for (layer, rank), own in loads.groups("layer", "rank"):
        yield {**facets, "layer": f"layer {layer}"} | ({"rank": str(rank)} if several else {}), own


def residency_cells(loads: ExpertLoads, num_experts: int, source: FileSource = RESIDENT) -> HeatCells:
    """The share of time that experts were resident; neighbouring experts and steps are grouped if there are too many."""
    shares, experts, steps = grouped_residency(residency(loads, num_experts), MOST_ROWS, MOST_COLUMNS)
    return HeatCells(experts, steps, shares, source=source, low=0.0, high=1.0)
