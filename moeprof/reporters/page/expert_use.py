"""How many experts a step uses, which stay hot, and what consecutive steps share: figures of recorded numbers beside chance."""

from collections.abc import Callable, Iterator, Sequence

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.units import format_significant
from moeprof.reporters.cells import percent
from moeprof.reporters.documents.trace import distinct_line, hot_set_line, locality_line
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.figure import Axis, Colour, Figure, Series, SeriesShape, View
from moeprof.reporters.page.selection import domain_facets, layer_facets, phases_of

ChanceLine = tuple[str, str, SeriesShape, Colour]
"""The name of a series, its metric, its shape and its colour."""

ACTIVE: Sequence[ChanceLine] = (
    ("used", "active_experts", "bars", 0),
    ("at most: min(E, k n)", "active_bound", "dots", "ink"),
    ("if all experts were equally likely", "active_by_chance", "dots", 1),
)
LOCALITY: Sequence[ChanceLine] = (
    ("measured", "active_overlap", "bars", 0),
    ("steps in random order", "active_overlap_shuffled", "dots", 1),
    ("by chance", "active_overlap_by_chance", "dots", "ink"),
)
DISTINCT: Sequence[ChanceLine] = (
    ("measured, consecutive tokens", "distinct_experts", "line", 0),
    ("recorded loads, random order", "distinct_experts_shuffled", "line", 1),
    ("if all experts were equally likely", "distinct_experts_by_chance", "rule", "ink"),
)
HOT_SET: Sequence[ChanceLine] = (
    ("measured on the second half", "hot_set_share", "line", 0),
    ("by chance", "hot_set_by_chance", "rule", "ink"),
)
Remark = Callable[[RunMetrics, str, str], str]
"""From metrics, the name of one and a layer to the remark of its value."""


def active_figure(metrics: RunMetrics) -> Iterator[PageBlock]:
    """How many experts a step uses, beside the most that its tokens can reach."""
    views = layer_views(metrics, ACTIVE, idle_remark)
    if views:
        yield Figure(
            "experts-active",
            "Experts that a step uses and leaves idle, by layer",
            " ".join(active_sentence(metrics, phase) for phase in phases_of(views)),
            Axis("layer"),
            Axis("experts per step"),
            views,
            caption="Means over steps. n tokens with k choices each reach at most min(E, k n) of E experts; others are idle in any case.",
        )


def active_sentence(metrics: RunMetrics, phase: str) -> str:
    """The means over layers."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    active, bound, idle = map(here.value, ("active_experts", "active_bound", "inactive_fraction"))
    return (
        f"{phase}: a step uses {format_significant(active)} experts of a layer and leaves {percent(idle)} idle; its tokens can reach "
        f"at most {format_significant(bound)}."
    )


def idle_remark(here: RunMetrics, metric: str, layer: str) -> str:
    """The share of the experts that are idle, beside those that are used."""
    return f"{percent(here.value('inactive_fraction', layer=layer))} are idle" if metric == "active_experts" else ""


def locality_figure(metrics: RunMetrics) -> Iterator[PageBlock]:
    """How many of a step's experts the step before used, beside chance."""
    views = layer_views(metrics, LOCALITY)
    if views:
        yield Figure(
            "experts-locality",
            "Experts that the step before used too, by layer",
            " ".join(locality_sentence(metrics, phase) for phase in phases_of(views)),
            Axis("layer"),
            Axis("overlap with the step before", "fraction"),
            views,
            caption="Share of a step's experts that the step before used, mean over pairs of consecutive steps. By chance: if every step "
            "drew its experts evenly. In random order only uneven loads make steps alike; what is above is due to the order of steps.",
        )


def locality_sentence(metrics: RunMetrics, phase: str) -> str:
    """The mean overlap over layers beside its value by chance."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    overlap, chance = map(here.value, ("active_overlap", "active_overlap_by_chance"))
    plain = f"{phase}: the step before used {percent(overlap)} of a step's experts; {percent(chance)} by chance."
    return next(locality_line(metrics, phase), plain)


def layer_views(metrics: RunMetrics, lines: Sequence[ChanceLine], remark: Remark | None = None) -> list[View]:
    """Series over layers for every phase and domain that has the first of their metrics."""
    found = []
    for phase in metrics.phases:
        for word, domain in domain_facets(metrics, phase):
            here = metrics.at(phase=phase, domain=domain, variant=metrics.baseline)
            if here.distinct("layer", lines[0][1]):
                found.append(View({"phase": phase, "domain": word}, list(layer_series(here, lines, remark))))
    return found


def layer_series(here: RunMetrics, lines: Sequence[ChanceLine], remark: Remark | None) -> Iterator[Series]:
    """A series for every metric that any layer has."""
    for name, metric, shape, colour in lines:
        layers = here.distinct("layer", metric)
        found = {layer: value for layer in layers if (value := here.or_none(metric, layer=layer)) is not None}
        remarks = [remark(here, metric, layer) for layer in found] if remark else ()
        if found:
            yield Series(name, list(found), list(found.values()), shape, remarks=remarks, colour=colour)


def distinct_figure(metrics: RunMetrics) -> Iterator[PageBlock]:
    """How many experts steps of other sizes would use; nothing for a run that ran a model, which has no such rows."""
    views = curve_views(metrics, DISTINCT, "tokens")
    if views:
        yield Figure(
            "experts-distinct",
            "Distinct experts over tokens per step",
            " ".join(line for phase in phases_of(views) for line in distinct_line(metrics, phase)),
            Axis("tokens per step", logarithmic=True),
            Axis("distinct experts"),
            views,
            caption="Mean number of experts of a layer that a group of tokens uses. Measured: groups of consecutive tokens of a domain.",
        )


def hot_set_figure(metrics: RunMetrics) -> Iterator[PageBlock]:
    """The share of the later choices at the hottest experts of the earlier ones, with its interval."""
    views = curve_views(metrics, HOT_SET, "experts")
    if views:
        yield Figure(
            "experts-hot-set",
            "Choices that a fixed set of experts serves",
            " ".join(line for phase in phases_of(views) for line in hot_set_line(metrics, phase)),
            Axis("experts in the set"),
            Axis("share of choices", "fraction"),
            views,
            caption="The experts of a layer that the first half of each domain's tokens chose most, judged by the choices of the second "
            "half; band: 95% interval from blocks of consecutive tokens.",
        )


def curve_views(metrics: RunMetrics, lines: Sequence[ChanceLine], swept: str) -> list[View]:
    """Series over a quantity of the point, over all layers and for each of them."""
    found = []
    for phase in metrics.phases:
        here = metrics.at(phase=phase, variant=metrics.baseline)
        for word, layer in layer_facets(here.distinct("layer", lines[0][1])):
            if series := list(curve_series(here.at(layer=layer), lines, swept)):
                found.append(View({"phase": phase, "layer": word}, series))
    return found


def curve_series(here: RunMetrics, lines: Sequence[ChanceLine], swept: str) -> Iterator[Series]:
    """A series for every metric, with its interval if it has one."""
    for name, metric, shape, colour in lines:
        curve, low, high = (here.curve(f"{metric}{end}", swept) for end in ("", "_low", "_high"))
        if curve:
            at, values, *ends = [[size for size, _ in curve], *([value for _, value in each] for each in (curve, low, high))]
            whole = len(low) == len(high) == len(curve)
            yield Series(name, at, values, shape, low=ends[0] if whole else (), high=ends[1] if whole else (), colour=colour)
