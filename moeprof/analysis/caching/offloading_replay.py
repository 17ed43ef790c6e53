"""What an offloading system would load for the routing of a trace: the decisions of a running model, without its weights and times."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from moeprof.analysis.caching.accesses import AccessStream
from moeprof.analysis.caching.miss_counts import hits
from moeprof.analysis.caching.routed_steps import RoutedStep
from moeprof.policies.offloading.decisions import LOADS, Arrangement, OffloadingDecisions, planner_of
from moeprof.policies.offloading.demands import demands_of
from moeprof.policies.offloading.foresight import foresight_of
from moeprof.policies.offloading.planner import HIGH
from moeprof.records.arrays import Flags
from moeprof.records.recipe.model import stack_of
from moeprof.records.recipe.offloading import Offloading

if TYPE_CHECKING:
    from moeprof.policies.offloading.order import LoadOrder

UnitBytes = Mapping[str, int]
"""Bytes of an expert by precision."""

LONGER = 1e9
"""Time of a load over that of a row: without times, a load is taken to be longer than any computation."""

EventKind = tuple[str, str, str, str, str]
"""Phase, domain, layer, precision, and name of events that are counted together."""


@dataclass(frozen=True)
class ReplayedModel:
    """The layers of a trace, in order of execution."""

    layers: Sequence[str]
    num_experts: int
    slots: int
    """Experts per layer whose bytes, at the model's own precision, are fast memory."""
    cold_phases: bool
    """Whether every phase begins with empty slots, as the pass of a run that records it."""

    def stacks(self) -> list[list[int]]:
        """The places of the layers of each stack, such as an encoder, which has slots of its own."""
        places = range(len(self.layers))
        return [list(stack) for _, stack in groupby(places, key=lambda place: stack_of(self.layers[place]))]


def replayed_events(
    model: ReplayedModel,
    choice: Offloading,
    steps: Sequence[RoutedStep],
    unit_bytes: Sequence[UnitBytes],
    advance: Callable[[], None] = lambda: None,
    counted_from: int = 0,
) -> list[dict[str, Any]]:
    """Rows of the raw table `unit_events` without their variant; `unit_bytes` by layer, `advance` is called after each step.

    Steps before the time `counted_from` fill the slots and do not count.
    """
    systems: dict[int, tuple[OffloadingDecisions, list[int]]] = {}
    for stack in model.stacks():
        decisions = decisions_of(model, choice, [unit_bytes[place] for place in stack])
        systems |= dict.fromkeys(stack, (decisions, stack))
    counts, phase = Counter[EventKind](), ""
    for step in steps:
        if step.phase != phase and model.cold_phases:
            for decisions, _ in systems.values():
                decisions.clear()
        phase, (decisions, stack) = step.phase, systems[step.layer]
        decided = decisions.step(step.layer - stack[0], step.experts_TK, step.weights_TK, model.num_experts)
        decisions.ahead(decided)
        for place, precision, event in decided.events() if step.time >= counted_from else ():
            counts[phase, step.domain, model.layers[stack[place]], precision, event] += 1
        advance()
    return list(rows_of(counts, dict(zip(model.layers, unit_bytes, strict=True))))


def decisions_of(model: ReplayedModel, choice: Offloading, unit_bytes: Sequence[UnitBytes]) -> OffloadingDecisions:
    """The decisions of a system for one stack, from empty slots, without what needs a model."""
    planner = planner_of(choice, model.slots, unit_bytes, model.num_experts)
    sizes = [model.num_experts] * len(unit_bytes)
    arrange = None
    if choice.order != "index":
        load_ns = dict.fromkeys(planner.precisions, LONGER)
        arrange = Arrangement(cast("LoadOrder", choice.order), planner.capacities[HIGH], load_ns, call_ns=0, row_ns=1)
    return OffloadingDecisions(planner, demands_of(choice), foresight_of(choice, sizes), arrange)


def buffered_events(
    model: ReplayedModel, policy: str, stream: AccessStream, unit_bytes: Sequence[UnitBytes]
) -> list[dict[str, Any]]:
    """As `replayed_events`, of expert buffering, which has slots of each layer: hits and misses are those of `replay --cache`."""
    counts = Counter[EventKind]()
    for place, layer in enumerate(model.layers):
        here_N = stream.layer_N == place
        for keep_N in (
            [here_N & (stream.phase_N == phase) for phase in np.unique(stream.phase_N)] if model.cold_phases else [here_N]
        ):
            hit_N = hits(stream.accesses(keep_N), policy, model.slots)
            names = [(stream.phases[phase], stream.domains[domain]) for phase, domain in cells(stream, keep_N)]
            counts.update((*name, layer, HIGH, "hit" if hit else "demand") for name, hit in zip(names, hit_N, strict=True))
    return list(rows_of(counts, dict(zip(model.layers, unit_bytes, strict=True))))


def cells(stream: AccessStream, keep_N: Flags) -> Iterator[tuple[int, int]]:
    """Phase and domain of accesses, as indices."""
    return zip(stream.phase_N[keep_N].tolist(), stream.domain_N[keep_N].tolist(), strict=True)


def rows_of(counts: Mapping[EventKind, int], unit_bytes: Mapping[str, UnitBytes]) -> Iterator[dict[str, Any]]:
    """A row per event, with the bytes that it loads."""
    for (phase, domain, layer, precision, event), count in counts.items():
        num_bytes = count * unit_bytes[layer][precision] if event in LOADS else 0
        cells = {"phase": phase, "domain": domain, "layer": layer, "precision": precision, "event": event}
        yield cells | {"rank": 0, "count": count, "bytes": num_bytes}
