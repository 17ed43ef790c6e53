"""The pass `routing`: every batch once under the baseline, every decision kept."""

from collections.abc import Sequence

from moeprof.analysis.drift import drift_rows
from moeprof.analysis.entropy import entropy_rows
from moeprof.analysis.fairseq import fairseq_rows
from moeprof.analysis.locality import locality_rows
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
    for rows_of in (routing_rows, fairseq_rows, locality_rows, drift_rows):
        session.writer.add_metrics(rows_of(trace))
    session.writer.add_metrics(entropy_rows(trace.header, recorder.entropies()))


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
