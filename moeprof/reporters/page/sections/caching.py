"""Caches: misses over their size with what each size costs, layer by layer, and which experts were resident when."""

from collections.abc import Iterator
from functools import partial

from moeprof.analysis.caching import replay_results
from moeprof.analysis.caching.advice import LOWER_BOUND, Advice, advise
from moeprof.analysis.caching.replay_results import policy_point, size_point
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.raw_tables import CACHE_SAMPLE
from moeprof.records.run.run import Run
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.units import format_bytes
from moeprof.reporters.cells import duration, percent, plural
from moeprof.reporters.documents.document import Paragraph
from moeprof.reporters.documents.replay import size_in_words
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Colour, Figure, FileSource, HeatCells, Hue, Series, View
from moeprof.reporters.page.sections.buffering import RESIDENT, buffering, by_layer, residency_cells, residency_over_time
from moeprof.reporters.sections.caches import place, reuses_experts, size_cell, size_name

SAMPLED = FileSource("cache_sample.parquet", RESIDENT.formula)

LRU = "lru"
"""The policy that most caches use."""

MOST_SIZES = 128
"""Sizes of a curve and of the slider; of more, as many at equal steps are drawn, and those that have rows for single layers."""


def caching(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """Figures of replayed caches, and of the slots of expert buffering; nothing for other runs."""
    if run.record.replay:
        yield from curve_figure(metrics)
        yield from layer_figure(metrics)
        yield from residency_figure(run)
    elif run.record.recipe:
        yield from buffering(run, metrics)


def axis_of_sizes(results: RunMetrics) -> Axis:
    """The quantity that was swept."""
    return Axis("budget of all layers", "bytes") if results.record.replayed.budgets else Axis("slots per layer")


def curve_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """Miss rate over sizes for every policy, with a slider that says what a size costs."""
    phases = replay_results.phases(results)
    advices = {phase: advise(results, phase) for phase in phases if reuses_experts(results, phase)}
    views = [view for phase, advice in advices.items() for view in size_views(results, phase, advice)]
    words = " ".join(curve_sentence(results, phase, advices.get(phase)) for phase in phases)
    if not views:
        yield from [Paragraph(words)] if words else []
        return
    start = next(iter(advices.values()))
    axis = axis_of_sizes(results)
    yield Figure(
        "caching-curves",
        f"Miss rate over {axis.name}",
        words,
        axis,
        Axis("miss rate", "fraction"),
        views,
        common=[series for phase, advice in advices.items() for series in curves(results, phase, advice)],
        sliders=[axis.name],
        first=[view.facets[axis.name] for view in views].index(size_name(results, start.size)) if start else 0,
        caption="In colour: the recommended policy and LRU; dashed: MIN (Belady), which needs future accesses and has the fewest "
        "misses of all policies that keep every expert they use; grey: the others. Caches start empty. Move the slider to see what a size "
        "costs; copy times are modelled from the bandwidth of the link.",
    )


def shown_sizes(results: RunMetrics) -> list[int]:
    """The sizes that are drawn, rising."""
    sizes = results.record.replayed.sizes
    if len(sizes) <= MOST_SIZES:
        return list(sizes)
    equal = {sizes[index * (len(sizes) - 1) // (MOST_SIZES - 1)] for index in range(MOST_SIZES)}
    return sorted(equal | set(replay_results.landmarks(results)))


def curves(results: RunMetrics, phase: str, advice: Advice | None) -> Iterator[Series]:
    """The curve of every policy in a phase, those in colour over the others."""
    sizes, special = set(shown_sizes(results)), colours(advice)
    for policy in sorted(replay_results.policies(results), key=lambda name: name in special):
        curve = [point for point in replay_results.curve(results, "miss_rate", phase, policy) if point[0] in sizes]
        if curve:
            at, rates = [size for size, _ in curve], [rate for _, rate in curve]
            yield Series(policy, at, rates, "rule", colour=special.get(policy, "muted"), only={"phase": phase})


def colours(advice: Advice | None) -> dict[str, Colour]:
    """The colours of the recommended policy, of LRU and of MIN."""
    found: dict[str, Colour] = {LOWER_BOUND: "ink", LRU: Hue("policy", LRU)}
    return found | ({advice.policy: Hue("policy", advice.policy)} if advice else {})


def size_views(results: RunMetrics, phase: str, advice: Advice | None) -> Iterator[View]:
    """A view for every size, with the recommended policy at this size."""
    if advice is None:
        if any(curves(results, phase, None)):
            yield View({"phase": phase})
        return
    for size in shown_sizes(results):
        rate = results.or_none("miss_rate", phase=phase, point=policy_point(results, advice.policy, size))
        if rate is not None:
            dot = Series(
                f"{advice.policy}, {size_name(results, size)}", [size], [rate], "dots", colour=Hue("policy", advice.policy)
            )
            facets = {"phase": phase, axis_of_sizes(results).name: size_name(results, size)}
            yield View(facets, [dot], readout=readout(results, phase, advice.policy, size))


def readout(results: RunMetrics, phase: str, policy: str, size: int) -> str:
    """What a policy misses at a size, how long its copies take, and the memory that the size saves."""
    at = results.at(phase=phase, point=policy_point(results, policy, size))
    rate, misses, loaded, time = map(at.or_none, ("miss_rate", "misses", "bytes_loaded", "transfer_time"))
    saved = results.or_none("memory_saved", point=size_point(results, size))
    parts = [
        f"{percent(rate)} of accesses miss" if rate is not None else "",
        f"{misses:,.0f} misses" if misses is not None else "",
        f"{duration(time)} of copies per step" if time is not None else "",
        f"{format_bytes(loaded)} loaded" if loaded is not None else "",
        f"{format_bytes(saved)} of expert memory saved" if saved is not None else "",
    ]
    return f"{policy}, {size_in_words(results, size)}: {', '.join(filter(None, parts))}."


def curve_sentence(results: RunMetrics, phase: str, advice: Advice | None) -> str:
    """`decode: lfu misses 32.1% of accesses at 32 slots; min 25.3%, lru 34.0%.`"""
    if not reuses_experts(results, phase):
        return f"{phase}: no expert is used twice, so every access misses in every cache."
    if advice is None:
        return f"{phase}: every replayed policy needs future accesses."
    others = {
        name: rate
        for name in (LOWER_BOUND, LRU)
        if name != advice.policy
        and (rate := replay_results.policy_value(results, "miss_rate", phase, name, advice.size)) is not None
    }
    beside = ", ".join(f"{name} {percent(rate)}" for name, rate in others.items())
    where = size_name(results, advice.size)
    return (
        f"{phase}: {advice.policy} misses {percent(advice.miss_rate)} of accesses at {where}{'; ' if beside else ''}{beside}."
    )


def residency_figure(run: Run) -> Iterator[PageBlock]:
    """Which experts the recommended cache holds over the first batches; nothing of runs without this sample, and of budgets."""
    views, caches = [], []
    for (phase, policy, slots), loads in ExpertLoads(run.raw(CACHE_SAMPLE)).groups("phase", "policy", "slots"):
        caches.append(f"{phase}: {policy}, {slots} {plural(slots, 'slot', 'slots')} per layer.")
        for facets, own in by_layer(loads, {"phase": phase}):
            views.append(View(facets, heat=residency_cells(own, run.record.trace.num_experts, SAMPLED)))
    if views:
        yield residency_over_time(
            "Experts that the recommended cache holds, over time",
            f"{' '.join(caches)} Bands are experts that stay; short marks are experts that leave before they are used again.",
            views,
            "The first batches of the layer, from an empty cache.",
        )


def layer_figure(results: RunMetrics) -> Iterator[PageBlock]:
    """Miss rate of every layer at some sizes, for the policies in colour; nothing if no layer has rates."""
    phases = filter(partial(reuses_experts, results), replay_results.phases(results))
    views = [view for phase in phases for view in layer_views(results, phase)]
    if views:
        yield Figure(
            "caching-layers",
            f"Miss rate by layer and {axis_of_sizes(results).name}",
            layer_sentence(results),
            Axis(axis_of_sizes(results).name),
            Axis("miss rate", "fraction"),
            views,
            rows=Axis("layer"),
            caption="All layers, at sizes in octaves and half octaves and at the knees of the curves."
            if len(results.record.replayed.sizes) > len(replay_results.landmarks(results))
            else "All layers and sizes.",
        )


def layer_views(results: RunMetrics, phase: str) -> Iterator[View]:
    """The layers under the recommended policy, LRU and MIN, domain by domain."""
    policies = set(replay_results.policies(results))
    domains = dict.fromkeys(domain for _, domain in replay_results.parts(results))
    for policy in reversed(colours(advise(results, phase))):
        for domain in domains if policy in policies else ():
            heat = layer_cells(results.at(phase=phase, domain=domain), policy)
            if heat.rows:
                yield View({"phase": phase, "policy": policy} | ({"domain": domain} if domain else {}), heat=heat)


def layer_cells(here: RunMetrics, policy: str) -> HeatCells:
    """The miss rates of all layers that have accesses, a column per size."""
    sizes = replay_results.landmarks(here)
    rates = {
        layer: [here.or_none("miss_rate", layer=layer, point=policy_point(here, policy, size)) for size in sizes]
        for layer in dict.fromkeys(layer for layer, _ in replay_results.parts(here))
        if here.or_none("expert_accesses", layer=layer)
    }
    columns = [size_cell(here, size) for size in sizes]
    return HeatCells(list(rates), columns, list(rates.values()), low=0.0, high=1.0)


def layer_sentence(results: RunMetrics) -> str:
    """The layer that misses most at the recommended size, phase by phase."""
    parts = []
    for phase in filter(partial(reuses_experts, results), replay_results.phases(results)):
        advice = advise(results, phase)
        worst = replay_results.worst(results, phase, advice.policy, advice.size) if advice else None
        if advice and worst:
            where = f"{place(*worst[1:])} misses most at {size_name(results, advice.size)}"
            parts.append(f"{phase}, {advice.policy}: {where}, {percent(worst[0])}; all layers {percent(advice.miss_rate)}.")
    return " ".join(parts) or "How many accesses of each layer miss."
