"""Experts: how evenly they are loaded, over layers and steps; how many a step reaches; which stay hot, and which are busy together."""

from collections.abc import Iterator, Sequence

from moeprof.analysis.routing.characterization import recorded_layers, whole_layers
from moeprof.analysis.routing.load_matrix import layer_matrices, pooled
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.raw_tables import EXPERT_COUNTS
from moeprof.records.run.run import Run
from moeprof.reporters.cells import plural, times
from moeprof.reporters.page.blocks import PageBlock
from moeprof.reporters.page.expert_maps import Phases, RoutedPhase, correlation_views, load_views, step_views
from moeprof.reporters.page.expert_use import active_figure, distinct_figure, hot_set_figure, locality_figure
from moeprof.reporters.page.figure import Axis, Figure, View
from moeprof.reporters.page.selection import phases_of

LOAD = Axis("load / even load", "ratio", logarithmic=True)
EXPERT = Axis("expert")
SCALE = (
    "Orange: more than the even load; blue: less; the colours rise with log2 of the ratio, up to eight times and down to an eighth. "
    "Grey: no choice at all."
)
JOINED = " Neighbouring steps are joined where there are many."


def experts(run: Run, metrics: RunMetrics) -> Iterator[PageBlock]:
    """All figures that the run has numbers for; nothing for a replay."""
    if not (run.record.recipe or run.record.characterization):
        return
    phases = routed_phases(run, metrics)
    yield from load_figure(metrics, list(load_views(phases)))
    yield from step_figure(list(step_views(phases)))
    yield from active_figure(metrics)
    yield from distinct_figure(metrics)
    yield from hot_set_figure(metrics)
    yield from locality_figure(metrics)
    yield from correlation_figure(list(correlation_views(phases)))


def routed_phases(run: Run, metrics: RunMetrics) -> Phases:
    """The load matrices of every phase that has routing, of the baseline if a model ran."""
    if run.record.characterization:
        by_domain, whole = recorded_layers(run), whole_layers(run)
    else:
        traces = {phase: run.trace(phase, metrics.baseline) for phase in metrics.phases}
        by_domain = {phase: list(layer_matrices(trace)) for phase, trace in traces.items() if trace is not None and len(trace)}
        whole = {phase: list(map(pooled, layers)) for phase, layers in by_domain.items()}
    return {phase: RoutedPhase(by_domain[phase], whole[phase], routing_file(run, metrics, phase)) for phase in by_domain}


def routing_file(run: Run, metrics: RunMetrics, phase: str) -> str:
    """The files that a phase was read from."""
    if run.record.characterization and run.record.characterization.counts_only:
        return EXPERT_COUNTS.file_name
    return f"routing/{phase}-{metrics.baseline}-rank*.parquet"


def load_figure(metrics: RunMetrics, views: Sequence[View]) -> Iterator[PageBlock]:
    """The loads of all experts of all layers."""
    if views:
        sentences = [load_sentence(metrics, phase) for phase in phases_of(views)]
        yield Figure(
            "experts-load",
            "Load of every expert, by layer",
            " ".join(filter(None, sentences)),
            EXPERT,
            LOAD,
            views,
            rows=Axis("layer"),
            caption=f"Choices of the router, those that capacity drops included. {SCALE}",
        )


def load_sentence(metrics: RunMetrics, phase: str) -> str:
    """How uneven the loads of a phase are, in the mean layer and in the worst one, and how many experts are never chosen."""
    here = metrics.at(phase=phase, variant=metrics.baseline)
    mean, dead = here.or_none("load_max_over_mean"), here.or_none("dead_experts")
    layers = here.distinct("layer", "load_max_over_mean", domain="")
    if mean is None or dead is None or not layers:
        return ""
    found = {layer: here.value("load_max_over_mean", layer=layer) for layer in layers}
    worst = max(found, key=lambda layer: found[layer])
    return (
        f"{phase}: the hottest expert of a layer has {times(mean)} the even load (mean over layers; worst {times(found[worst])}, layer "
        f"{worst}); {dead:,.0f} {plural(int(dead), 'expert is', 'experts are')} never chosen."
    )


def step_figure(views: Sequence[View]) -> Iterator[PageBlock]:
    """The loads of the experts of one layer over steps; nothing of a single step."""
    if views:
        joined = any(" to " in name for view in views if view.heat for name in view.heat.columns)
        yield Figure(
            "experts-steps",
            "Load of every expert over steps",
            "Whether hot experts stay hot: a row that is orange throughout is an expert that every step uses more than the others.",
            Axis("step"),
            LOAD,
            views,
            rows=EXPERT,
            caption=f"Experts from the most to the least loaded of the layer.{JOINED if joined else ''} {SCALE}",
        )


def correlation_figure(views: Sequence[View]) -> Iterator[PageBlock]:
    """Which experts of a layer are busy in the same steps."""
    if views:
        most = max(len(view.heat.rows) for view in views if view.heat)
        yield Figure(
            "experts-correlation",
            "Experts that are busy in the same steps",
            "Orange: two experts have many choices in the same steps, and compete if they share a device; blue: when one has many, the "
            "other has few.",
            EXPERT,
            Axis("correlation"),
            views,
            rows=EXPERT,
            caption="Pearson correlation of the shares of two experts over steps; experts that are busy together are side by side. At "
            f"most {most} experts of a layer are shown, the most loaded; those whose share never changes have no correlation.",
        )
