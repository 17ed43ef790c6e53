"""The pass `routing`: every batch once under every contender that routes, every decision kept."""

from collections.abc import Sequence

from moeprof.analysis.drift import drift_rows
from moeprof.analysis.entropy import entropy_rows
from moeprof.analysis.fairseq import fairseq_rows
from moeprof.analysis.locality import locality_rows
from moeprof.analysis.routing import routing_rows
from moeprof.analysis.slots import StepSize, slot_rows
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.records.recipe import Recipe
from moeprof.records.routing_trace import TraceHeader
from moeprof.records.variant import Variant
from moeprof.studies.session import Session
from moeprof.workloads.episodes import Episode

ANALYSES = (routing_rows, fairseq_rows, locality_rows, drift_rows)
"""Of the baseline's trace; another contender's router decides the same, so only its loads and drops are told."""


def record_routing(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes each contender's trace of `phase` and what follows from it; settles the tokens that every later pass works on."""
    routed = [variant for variant in session.contenders if not variant.dense]
    session.progress.stage(f"{phase}: routing", len(episodes) * len(routed))
    for episode in episodes:
        episode.settle(session.use(session.baseline))
    for variant in routed:
        recorder = recorded(session, variant, episodes)
        trace = recorder.trace(trace_header(session.recipe, phase, variant))
        session.writer.add_trace(trace)
        session.writer.add_metrics(slot_rows(session.recipe, phase, variant.label, step_sizes(recorder, episodes)))
        for rows_of in ANALYSES if variant == session.baseline else ANALYSES[:1]:
            session.writer.add_metrics(rows_of(trace))
        if variant == session.baseline:
            session.writer.add_metrics(entropy_rows(trace.header, recorder.entropies()))


def recorded(session: Session, variant: Variant, episodes: Sequence[Episode]) -> RoutingRecorder:
    """What a contender's routers decided on all episodes."""
    recorder, model = RoutingRecorder(), session.use(variant)
    for episode in episodes:
        play = episode.ready(model)
        with observed_by(recorder):
            play()
        session.progress.advance()
    return recorder


def step_sizes(recorder: RoutingRecorder, episodes: Sequence[Episode]) -> list[StepSize]:
    """Of every step, with the rows that its layers computed."""
    return [
        StepSize(
            episode.domain,
            recorder.rows_seen[step.index],
            step.num_tokens,
            sum(computed := recorder.rows_computed[step.index]) / len(computed),
        )
        for episode in episodes
        for step in episode.steps
    ]


def trace_header(recipe: Recipe, phase: str, variant: Variant) -> TraceHeader:
    """Of the trace that a phase leaves under a variant."""
    return TraceHeader(
        workload=recipe.workload,
        phase=phase,
        variant=variant.label,
        num_experts=recipe.model.experts,
        top_k=recipe.gating.top_k,
        layers=recipe.moe_layers(phase),
        forced=recipe.forced,
    )
