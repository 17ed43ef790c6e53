"""Whether a replay reproduces a buffered run: the same accesses and the same hits, one by one.

A replay with other slots or policies is credible only if the replay with the run's own slots and policy equals the run.
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
    """The buffering of one variant of a run."""

    label: str
    slots: int
    eviction: str


class DifferenceError(Exception):
    """The first difference between a replay and a run, as its message."""


def reproduced(loads: ExpertLoads, ranks: Sequence[RoutingTrace], buffered: Buffered, placement: Placement) -> int:
    """The number of uses, if a replay of the trace hits and misses as the run did in all of them; DifferenceError otherwise.

    `loads` and `ranks` are of one phase and variant; `ranks` has one trace per rank.
    """
    for layer in dict.fromkeys(loads.column("layer").tolist()):
        step_N, rank_N, expert_N = used(ranks, layer, np.array(placement.layers[layer]))
        for rank in range(len(ranks)):
            here_N = rank_N == rank
            where = f"layer {layer}" + (f", rank {rank}" if len(ranks) > 1 else "")
            compare(loads.of(rank=rank, layer=layer), step_N[here_N], expert_N[here_N], buffered, where)
    return len(loads)


def used(ranks: Sequence[RoutingTrace], layer: str, slots_DS: Counts) -> Counts:
    """Step, rank and expert of every use, (3, N): in each step, the distinct experts that each rank serves, by number."""
    choices = choices_of(ranks, layer)
    if choices is None:
        return np.zeros((3, 0), np.int64)
    keys = np.stack([choices.steps_B[choices.step_R], choices.served_R(slots_DS), choices.expert_R])
    return np.unique(keys, axis=1)


def compare(recorded: ExpertLoads, step_N: Counts, expert_N: Counts, buffered: Buffered, where: str) -> None:
    """Compares one cache: first its accesses, then its hits. DifferenceError at the first difference."""
    if not np.array_equal(expert_N, recorded.column("expert")):
        raise DifferenceError(f"{where}: the run used experts that differ from its trace")
    if not np.array_equal(step_N, recorded.column("step")):
        raise DifferenceError(f"{where}: the steps in which the run used experts differ from its trace")
    if not len(expert_N):
        return
    hit_N = hits(Accesses(expert_N, step_N, np.zeros_like(step_N)), buffered.eviction, buffered.slots)
    if len(wrong := np.flatnonzero(hit_N != recorded.column("hit"))):
        first = int(wrong[0])
        raise DifferenceError(
            f"{where}: step {step_N[first]}, expert {expert_N[first]}: a {'miss' if hit_N[first] else 'hit'} in the run, "
            f"the opposite in the replay ({len(wrong):,} of {len(expert_N):,} uses differ)"
        )


def buffered_of(variant: Mapping[str, str | bool | int]) -> Buffered | None:
    """The buffering of a variant in `run.json`; None if all its experts are resident, or an offloading system decides."""
    if not variant.get("slots") or variant.get("system"):
        return None
    return Buffered(str(variant["label"]), int(variant["slots"]), str(variant["eviction"]))
