"""The pass `routing`: every batch once under every variant that routes, every decision kept."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from moeprof.analysis.caching.residency import with_residency
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.visits import LayerStep, loads_table
from moeprof.moe.buffers import buffered_stores, kept
from moeprof.parallel.collectives import gathered
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import EXPERT_CALLS, GATE_ENTROPIES, MOVEMENTS, NOT_FINITE, STEPS, UNIT_EVENTS
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.traces.expert_loads import joined
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader
from moeprof.studies.passes.finite import FiniteCheck
from moeprof.studies.selection import first_steps, judged
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode


def record_routing(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records what the routers decide under every variant whose experts are not placed.

    Settles the tokens that every later pass works on.
    """
    runner = services.runner
    for episode in episodes:
        episode.settle(runner.select(runner.baseline))
    variants = [variant for variant in runner.routed if not variant.placed]
    services.progress.stage(f"{phase}: routing", len(episodes) * len(variants))
    for variant in variants:
        record_variant(services, phase, variant, episodes)
    return Findings()


def record_variant(services: Services, phase: str, variant: Variant, episodes: Sequence[Episode]) -> None:
    """Records a variant's decisions, steps and gate entropies, and where its outputs are not finite."""
    recorder, check = recorded(services, variant, episodes)
    starts = first_steps(judged(services.runner.variants, episodes))
    services.record(NOT_FINITE, check.rows(phase, variant.label))
    record_decisions(services, phase, variant, recorder)
    services.record(UNIT_EVENTS, event_rows(phase, variant.label, recorder.visits))
    services.record(MOVEMENTS, movement_rows(phase, variant.label, recorder.visits))
    services.record(STEPS, step_rows(phase, variant.label, recorder, starts))
    services.record(GATE_ENTROPIES, entropy_rows(phase, variant.label, recorder))
    if isinstance(services.recipe.model, HuggingFaceSection):
        services.record(EXPERT_CALLS, call_rows(phase, variant.label, recorder))


def recorded(services: Services, variant: Variant, episodes: Sequence[Episode]) -> tuple[RoutingRecorder, FiniteCheck]:
    """What a variant's routers decided on all episodes, and whether its outputs are finite; hits and misses count from a cold start."""
    recorder, check, model = RoutingRecorder(), FiniteCheck(), services.runner.select(variant)
    for store in buffered_stores(model):
        store.reset()
    for episode in episodes:
        with kept(model):
            outputs = episode.outputs(model)
        with observed_by(recorder), check.watching(model):
            for step, y_TV in zip(episode.steps, outputs, strict=True):
                check.add("", step, y_TV)
        services.progress.advance()
    if services.runner.buffers is not None:
        recorder.moved(services.runner.buffers.ledger.rest())
    return recorder, check


def record_decisions(services: Services, phase: str, variant: Variant, recorder: RoutingRecorder) -> None:
    """Writes the traces of all ranks, and the hits and misses of buffered layers."""
    trace = recorder.trace(trace_header(services.recipe, phase, variant))
    if isinstance(services.recipe.model, HuggingFaceSection) and not services.recipe.model.keep_tokens:
        trace = trace.without_token_ids()
    mine = loads_table(services.group.rank, phase, variant.label, "", recorder.visits)
    loads = joined(unpacked(payload) for payload in gathered(services.group, packed(mine)))
    for rank, payload in enumerate(gathered(services.group, packed(trace.table))):
        header = trace.header.model_copy(update={"rank": rank})
        services.writer.add_trace(with_residency(RoutingTrace(header, unpacked(payload)), loads))
    if len(loads):
        services.writer.add_loads(loads)


def step_rows(phase: str, label: str, recorder: RoutingRecorder, starts: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `steps`; steps before those in `starts`, by domain, are for placements to be made from."""
    for layer, step, num_rows, expert_rows in recorder.steps:
        cells = {"phase": phase, "variant": label, "domain": step.domain, "layer": layer, "step": step.index}
        sizes = {"rows": num_rows, "tokens": step.num_tokens, "expert_rows": expert_rows}
        yield cells | sizes | {"judged": step.index >= starts.get(step.domain, 0)}


def event_rows(phase: str, label: str, visits: Iterable[LayerStep]) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `unit_events`: what an offloading store did, added up over steps."""
    found: dict[tuple[str, str, str, str], list[int]] = {}
    for visit in visits:
        for layer, precision, event, num_bytes in visit.visit.events:
            sums = found.setdefault((visit.domain, layer, precision, event), [0, 0])
            sums[0], sums[1] = sums[0] + 1, sums[1] + num_bytes
    for (domain, layer, precision, event), (count, num_bytes) in found.items():
        cells = {"phase": phase, "variant": label, "domain": domain, "layer": layer, "precision": precision, "event": event}
        yield cells | {"count": count, "bytes": num_bytes}


def movement_rows(phase: str, label: str, visits: Iterable[LayerStep]) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `movements`: what the ledger moved, added up over steps."""
    found: Counter[tuple[str, ...]] = Counter()
    moved_bytes: Counter[tuple[str, ...]] = Counter()
    for visit in visits:
        for *kind, num_bytes in visit.visit.movements:
            found[visit.domain, *kind] += 1
            moved_bytes[visit.domain, *kind] += num_bytes
    names = ("domain", "layer", "precision", "reason", "tier")
    for cells, count in found.items():
        yield (
            {"phase": phase, "variant": label}
            | dict(zip(names, cells, strict=True))
            | {"count": count, "bytes": moved_bytes[cells]}
        )


def entropy_rows(phase: str, label: str, recorder: RoutingRecorder) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `gate_entropies`."""
    for found in recorder.entropies():
        cells = {"phase": phase, "variant": label, "domain": found.domain, "layer": found.layer}
        yield cells | {"tokens": found.tokens, "entropy_nats": found.total}


def call_rows(phase: str, label: str, recorder: RoutingRecorder) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `expert_calls`: the calls of a layer on a domain by the same backend are added up."""
    found: dict[tuple[str, str, str], Counter[str]] = {}
    for layer, step, backend, choices in recorder.calls:
        found.setdefault((step.domain, layer, backend), Counter()).update({"calls": 1, **choices})
    for (domain, layer, backend), numbers in found.items():
        yield {"phase": phase, "variant": label, "domain": domain, "layer": layer, "backend": backend, **numbers}


def trace_header(recipe: Recipe, phase: str, variant: Variant) -> TraceHeader:
    """The header of the trace that a phase leaves under a variant."""
    return TraceHeader(
        workload=recipe.workload,
        phase=phase,
        variant=variant.label,
        num_experts=recipe.model.experts,
        top_k=recipe.gating.top_k,
        layers=recipe.moe_layers(phase),
        forced=recipe.forced,
    )
