"""The pass `routing`: every batch once under the baseline, every decision kept."""

from collections.abc import Sequence

from moeprof.analysis.routing import routing_rows
from moeprof.analysis.static_cost import StepSize, static_cost_rows
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.records.recipe import Recipe
from moeprof.records.routing_trace import TraceHeader
from moeprof.records.variant import Variant
from moeprof.studies.session import Session
from moeprof.workloads.episodes import Episode


def record_routing(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes the trace of `phase` and what follows from it; settles the tokens that every later pass works on."""
    session.progress.stage(f"{phase}: routing", len(episodes))
    model = session.contenders[session.baseline]
    recorder = RoutingRecorder()
    for episode in episodes:
        episode.settle(model)
        play = episode.ready(model)
        with observed_by(recorder):
            play()
        session.progress.advance()
    trace = recorder.trace(trace_header(session.recipe, phase, session.baseline))
    session.writer.add_trace(trace)
    sizes = [StepSize(e.domain, recorder.rows_seen[step.index], step.num_tokens) for e in episodes for step in e.steps]
    session.writer.add_metrics(static_cost_rows(session.recipe, phase, session.baseline.label, sizes))
    session.writer.add_metrics(routing_rows(trace))


def trace_header(recipe: Recipe, phase: str, variant: Variant) -> TraceHeader:
    """Of the trace that a phase leaves under a variant."""
    return TraceHeader(
        workload=recipe.workload,
        phase=phase,
        variant=variant.label,
        num_experts=recipe.model.experts,
        top_k=recipe.gating.top_k,
        layers=recipe.moe_layers(phase),
        forced=recipe.routing.source != "model",
    )
