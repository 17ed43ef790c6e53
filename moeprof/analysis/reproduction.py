"""Whether a replay does what a buffered run did: the same accesses, and the same hits, one by one.

A what-if about a run of ours is worth something only where the replay of what really happened comes out as it happened.
Shape suffix: N uses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.accesses import Stream, stream_of
from moeprof.analysis.misses import Flags, hits
from moeprof.records.loads import Loads
from moeprof.records.routing_trace import RoutingTrace


@dataclass(frozen=True)
class Buffered:
    """How a variant of a run was buffered."""

    label: str
    slots: int
    eviction: str


class DifferenceError(Exception):
    """Where a replay and a run part; the message says it."""


def reproduced(loads: Loads, ranks: Sequence[RoutingTrace], buffered: Buffered) -> int:
    """The number of uses, all of which a replay of the trace hits and misses as the run did; DifferenceError otherwise.

    `loads` and `ranks` are those of one phase and variant, the traces one of each rank.
    """
    layers = list(dict.fromkeys(loads.column("layer").tolist()))
    stream = stream_of({"run": [of_layers(trace, layers) for trace in ranks]}, layers, as_logged=False)
    device_N = stream.device_N(len(ranks))
    for rank in range(len(ranks)):
        for number, layer in enumerate(layers):
            recorded = loads.of(rank=rank, layer=layer)
            where = f"layer {layer}" + (f", rank {rank}" if len(ranks) > 1 else "")
            compare(recorded, stream, (device_N == rank) & (stream.layer_N == number), buffered, where)
    return len(loads)


def of_layers(trace: RoutingTrace, layers: Sequence[str]) -> RoutingTrace:
    """Of the buffered layers alone."""
    codes_R, names = trace.codes("layer")
    keep = np.isin(codes_R, [index for index, name in enumerate(names) if name in layers])
    return RoutingTrace(trace.header, trace.table.filter(keep))


def compare(recorded: Loads, stream: Stream, sees_N: Flags, buffered: Buffered, where: str) -> None:
    """One cache: first what it was asked for, then what it had."""
    accesses = stream.accesses(sees_N)
    expert_N, steps = stream.expert_N[sees_N], recorded.column("step")
    if len(accesses) != len(recorded) or (expert_N != recorded.column("expert")).any():
        raise DifferenceError(f"{where}: the run used other experts than its trace says")
    if (np.diff(steps) != 0).tolist() != (np.diff(accesses.batches_N) != 0).tolist():
        raise DifferenceError(f"{where}: the run used experts in other steps than its trace says")
    if not len(accesses):
        return
    hit_N = hits(accesses, buffered.eviction, buffered.slots)
    if len(wrong := np.flatnonzero(hit_N != recorded.column("hit"))):
        first = int(wrong[0])
        raise DifferenceError(
            f"{where}: in step {steps[first]} expert {expert_N[first]} was {'not ' if hit_N[first] else ''}there, "
            f"a replay says otherwise ({len(wrong):,} of {len(accesses):,} uses)"
        )


def buffered_of(variant: Mapping[str, str | bool | int]) -> Buffered | None:
    """As a run's record describes it; None of a variant whose experts are all resident."""
    if variant.get("store") != "buffered":
        return None
    return Buffered(str(variant["label"]), int(variant["slots"]), str(variant["eviction"]))
