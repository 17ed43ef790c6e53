"""The pass `routing`: every batch once under every contender that routes, every decision kept; experts are placed by it."""

from collections.abc import Sequence
from dataclasses import astuple

from moeprof.analysis.caching.residency import residency_rows, with_residency
from moeprof.analysis.placement.deployed_rows import from_step
from moeprof.analysis.placement.rank_load import rank_load_rows
from moeprof.analysis.routing.capacity import StepSize, averaged, slot_rows
from moeprof.analysis.routing.drift import drift_rows
from moeprof.analysis.routing.entropy import entropy_rows
from moeprof.analysis.routing.fairseq import fairseq_rows
from moeprof.analysis.routing.locality import locality_rows
from moeprof.analysis.routing.metrics import routing_rows
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.visits import loads_table
from moeprof.models.buffers import buffered_stores, kept
from moeprof.parallel.collectives import all_gather_json, gathered
from moeprof.parallel.group import Group
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.traces.expert_loads import joined as joined_loads
from moeprof.records.traces.gate_entropy import GateEntropy
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader, joined
from moeprof.studies.passes.placement import place_experts
from moeprof.studies.session import Session, first_steps
from moeprof.workloads.episodes import Episode

ANALYSES = (routing_rows, fairseq_rows, locality_rows, drift_rows)
"""Of the baseline's trace; another contender's router decides the same, so only its loads and drops are told."""


def record_routing(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes each contender's trace of `phase` and what follows from it; settles the tokens that every later pass works on."""
    routed = [variant for variant in session.contenders if not variant.dense]
    session.progress.stage(f"{phase}: routing", len(episodes) * len(routed))
    for episode in episodes:
        episode.settle(session.use(session.baseline))
    known: dict[Variant, list[RoutingTrace]] = {}
    for variant in routed:
        if variant.placed:
            place_experts(session, phase, variant, episodes, known.get(variant.unplaced, known[session.baseline]))
        recorder = recorded(session, variant, episodes)
        traces = of_every_rank(session.group, recorder.trace(trace_header(session.recipe, phase, variant)))
        known[variant] = traces
        sizes = all_gather_json(session.group, [astuple(size) for size in step_sizes(recorder, episodes)])
        entropies = all_gather_json(session.group, [astuple(entropy) for entropy in recorder.entropies()])
        loads = loads_of_every_rank(session, phase, variant, recorder)
        if not session.group.first:
            continue
        for trace in traces:
            session.writer.add_trace(with_residency(trace, loads))
        if len(loads):
            session.writer.add_loads(loads)
            at = MetricRow("", 0, session.recipe.workload, phase, variant=variant.label, forced=session.recipe.forced)
            session.writer.add_metrics(residency_rows(loads, at))
        steps = averaged([[StepSize(*size) for size in mine] for mine in sizes])
        session.writer.add_metrics(slot_rows(session.recipe, phase, variant.label, steps))
        if not session.group.alone:
            starts = first_steps(session.judged(episodes))
            judged = [from_step(trace, starts) for trace in traces]
            session.writer.add_metrics(rank_load_rows(judged, session.placements.get(variant)))
        together = joined(traces[0].header, [trace.table for trace in traces])
        for rows_of in ANALYSES if variant == session.baseline else ANALYSES[:1]:
            session.writer.add_metrics(rows_of(together))
        if variant == session.baseline:
            found = [GateEntropy(*entropy) for mine in entropies for entropy in mine]
            session.writer.add_metrics(entropy_rows(together.header, found))


def of_every_rank(group: Group, mine: RoutingTrace) -> list[RoutingTrace]:
    """The traces of all ranks on the first one, nothing elsewhere; steps of one number happened together."""
    return [
        RoutingTrace(mine.header.model_copy(update={"rank": rank}), unpacked(payload))
        for rank, payload in enumerate(gathered(group, packed(mine.table)))
    ]


def recorded(session: Session, variant: Variant, episodes: Sequence[Episode]) -> RoutingRecorder:
    """What a contender's routers decided on all episodes."""
    recorder, model = RoutingRecorder(), session.use(variant)
    for store in buffered_stores(model):
        store.reset()  # hits and misses count from a cold start
    for episode in episodes:
        with kept(model):
            play = episode.ready(model)
        with observed_by(recorder):
            play()
        session.progress.advance()
    return recorder


def loads_of_every_rank(session: Session, phase: str, variant: Variant, recorder: RoutingRecorder) -> ExpertLoads:
    """What buffered layers hit and missed, rank by rank, on the first rank; nothing elsewhere."""
    mine = loads_table(session.group.rank, phase, variant.label, "", recorder.visits)
    return joined_loads(unpacked(payload) for payload in gathered(session.group, packed(mine)))


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
