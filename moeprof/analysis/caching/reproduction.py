"""Whether a replay does what a buffered run did: the same accesses, and the same hits, one by one.

A what-if about a run of ours is worth something only where the replay of what really happened comes out as it happened.
Shape suffix: N uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.caching.miss_counts import Accesses, hits
from moeprof.analysis.placement.virtual_parallel import choices_of
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.records.placement import Placement
from moeprof.records.traces.expert_loads import ExpertLoads
from moeprof.records.traces.routing_trace import RoutingTrace


@dataclass(frozen=True)
class Buffered:
    """How a variant of a run was buffered."""

    label: str
    slots: int
    eviction: str


class DifferenceError(Exception):
    """Where a replay and a run part; the message says it."""


def reproduced(loads: ExpertLoads, ranks: Sequence[RoutingTrace], buffered: Buffered, placement: Placement) -> int:
    """The number of uses, all of which a replay of the trace hits and misses as the run did; DifferenceError otherwise.

    `loads` and `ranks` are those of one phase and variant, the traces one of each rank.
    """
    for layer in dict.fromkeys(loads.column("layer").tolist()):
        step_N, rank_N, expert_N = used(ranks, layer, np.array(placement.layers[layer]))
        for rank in range(len(ranks)):
            here_N = rank_N == rank
            where = f"layer {layer}" + (f", rank {rank}" if len(ranks) > 1 else "")
            compare(loads.of(rank=rank, layer=layer), step_N[here_N], expert_N[here_N], buffered, where)
    return len(loads)


def used(ranks: Sequence[RoutingTrace], layer: str, slots_DS: Counts) -> Counts:
    """Step, rank and expert of every use, (3, N): step by step, the distinct experts that each rank serves, by their numbers."""
    choices = choices_of(ranks, layer)
    if choices is None:
        return np.zeros((3, 0), np.int64)
    keys = np.stack([choices.steps_B[choices.step_R], choices.served_R(slots_DS), choices.expert_R])
    return np.unique(keys, axis=1)


def compare(recorded: ExpertLoads, step_N: Counts, expert_N: Counts, buffered: Buffered, where: str) -> None:
    """One cache: first what it was asked for, then what it had."""
    if not np.array_equal(expert_N, recorded.column("expert")):
        raise DifferenceError(f"{where}: the run used other experts than its trace says")
    if not np.array_equal(step_N, recorded.column("step")):
        raise DifferenceError(f"{where}: the run used experts in other steps than its trace says")
    if not len(expert_N):
        return
    hit_N = hits(Accesses(expert_N, step_N, np.zeros_like(step_N)), buffered.eviction, buffered.slots)
    if len(wrong := np.flatnonzero(hit_N != recorded.column("hit"))):
        first = int(wrong[0])
        raise DifferenceError(
            f"{where}: in step {step_N[first]} expert {expert_N[first]} was {'not ' if hit_N[first] else ''}there, "
            f"a replay says otherwise ({len(wrong):,} of {len(expert_N):,} uses)"
        )


def buffered_of(variant: Mapping[str, str | bool | int]) -> Buffered | None:
    """As a run's record describes it; None of a variant whose experts are all resident."""
    if variant.get("store") != "buffered":
        return None
    return Buffered(str(variant["label"]), int(variant["slots"]), str(variant["eviction"]))
