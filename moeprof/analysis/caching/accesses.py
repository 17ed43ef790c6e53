"""The accesses of a routing trace to expert caches: batch after batch, the distinct experts that a layer uses in a step.

A batch is one step of one layer. In a log that gives every token a step of its own (`as_logged`), neighbouring prefill steps of a
sequence are one batch, because they ran together; its experts come in the order of their last use in the log, which for a batch of
one token is the router's order; choices that the log says were dropped are no accesses. In all other traces they come in the order
of their ids, in which a layer runs them (paper 5.2).

Shape suffixes: R rows of the traces, N accesses, L layers, P phases, D domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moeprof.analysis.caching.miss_counts import Accesses
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.records.arrays import first_places
from moeprof.records.run.replay import PREFILL
from moeprof.records.traces.routing_trace import RoutingTrace


@dataclass(frozen=True, eq=False)
class AccessStream:
    """Every access of a trace, in order."""

    layers: Sequence[str]
    phases: Sequence[str]
    domains: Sequence[str]
    num_experts: int
    layer_N: Counts
    """The index of the layer; `phase_N` and `domain_N` are indices too."""
    phase_N: Counts
    domain_N: Counts
    expert_N: Counts
    batch_N: Counts
    """The number of the batch, never falling."""
    batches_PL: Counts
    """The number of steps of each layer in a phase."""

    def __len__(self) -> int:
        return len(self.expert_N)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The numbers of layers, phases and domains, (L, P, D)."""
        return len(self.layers), len(self.phases), len(self.domains)

    @property
    def steps_P(self) -> Counts:
        """The number of steps of each phase: that of its layer with the most steps."""
        return np.asarray(self.batches_PL.max(axis=1))

    @cached_property
    def cell_N(self) -> Counts:
        """The cell (layer, phase, domain) that an access is counted in, as one number."""
        _, phases, domains = self.shape
        return (self.layer_N * phases + self.phase_N) * domains + self.domain_N

    def counted(self, keep_N: npt.NDArray[np.bool_] | None = None) -> Counts:
        """The number of accesses, or of those in `keep_N`, (L, P, D)."""
        cells = self.cell_N if keep_N is None else self.cell_N[keep_N]
        return np.bincount(cells, minlength=int(np.prod(self.shape))).reshape(self.shape).astype(np.int64)

    def device_N(self, num_devices: int) -> Counts:
        """The device of every access, if each device holds an equal block of neighbouring experts."""
        return self.expert_N * num_devices // self.num_experts

    def accesses(self, keep_N: npt.NDArray[np.bool_]) -> Accesses:
        """The accesses that one cache serves; a block is an expert of a layer, and the groups are cells."""
        blocks_N = self.layer_N * self.num_experts + self.expert_N
        return Accesses(blocks_N[keep_N], self.batch_N[keep_N], self.cell_N[keep_N], self.layer_N[keep_N])


@dataclass(frozen=True, eq=False)
class TraceRows:
    """The rows of several traces one after another, with the time of the batch that each is of."""

    traces: Sequence[RoutingTrace]
    phases: Sequence[str]
    domains: Sequence[str]
    layer_R: Counts
    """The index of the layer; `phase_R` and `domain_R` are indices too."""
    phase_R: Counts
    domain_R: Counts
    time_R: Counts

    def column(self, name: str) -> Counts:
        """A column of whole numbers, (R,)."""
        return np.concatenate([trace.column(name).astype(np.int64) for trace in self.traces])

    @property
    def num_experts(self) -> int:
        """Experts of a layer."""
        return self.traces[0].header.num_experts


def trace_rows(
    traces: Mapping[str, Sequence[RoutingTrace]], layers: Sequence[str], *, as_logged: bool, shared_steps: bool
) -> TraceRows:
    """The rows of one or more phases; arguments as in `stream_of`."""
    phases = list(traces)
    parts = [(index, trace) for index, phase in enumerate(phases) for trace in traces[phase]]
    layer_R, _ = renamed([trace.codes("layer") for _, trace in parts], layers)
    domain_R, domains = renamed([trace.codes("domain") for _, trace in parts])
    phase_R = np.concatenate([np.full(len(trace), index) for index, trace in parts])
    step_R, sequence_R = (
        np.concatenate([trace.column(name).astype(np.int64) for _, trace in parts]) for name in ("step", "sequence")
    )
    prefill_R = phase_R == phases.index(PREFILL) if as_logged and PREFILL in phases else np.zeros(len(phase_R), bool)
    time_R = times(step_R, phase_R, prefill_R, sequence_R, shared=as_logged or shared_steps)
    return TraceRows([trace for _, trace in parts], phases, domains, layer_R, phase_R, domain_R, time_R)


def stream_of(
    traces: Mapping[str, Sequence[RoutingTrace]], layers: Sequence[str], *, as_logged: bool, shared_steps: bool = False
) -> AccessStream:
    """The accesses of one or more phases, each with a trace per rank; ranks run every step together.

    `layers` are in the order of execution. In a log, or if the phases share their steps, these say in which order they ran; in other
    traces one phase follows the other.
    """
    rows = trace_rows(traces, layers, as_logged=as_logged, shared_steps=shared_steps)
    layer_R, domain_R, phase_R, time_R = rows.layer_R, rows.domain_R, rows.phase_R, rows.time_R
    expert_R, dropped_R = rows.column("expert"), rows.column("dropped")
    phases, domains = rows.phases, rows.domains
    num_experts = rows.num_experts
    batch_R = time_R * len(layers) + layer_R
    read = np.flatnonzero(dropped_R == 0) if as_logged else np.arange(len(batch_R))
    kept = read[last_uses((batch_R * num_experts + expert_R)[read])]
    if as_logged:
        kept = kept[np.lexsort((kept, batch_R[kept]))]
    first, _ = distinct(batch_R)
    batches = np.bincount(phase_R[first] * len(layers) + layer_R[first], minlength=len(phases) * len(layers))
    return AccessStream(
        layers=layers,
        phases=phases,
        domains=domains,
        num_experts=num_experts,
        layer_N=layer_R[kept],
        phase_N=phase_R[kept],
        domain_N=domain_R[kept],
        expert_N=expert_R[kept],
        batch_N=batch_R[kept],
        batches_PL=batches.reshape(len(phases), len(layers)),
    )


def renamed(columns: Sequence[tuple[npt.NDArray[np.int32], list[str]]], names: Sequence[str] = ()) -> tuple[Counts, list[str]]:
    """Name columns of several traces as one column of indices (R,) into one list of names, which starts with `names`."""
    known = dict.fromkeys([*names, *(name for codes, own in columns for name in used(codes, own))])
    place = {name: index for index, name in enumerate(known)}
    parts = [np.array([place.get(name, -1) for name in own], np.int64)[codes] for codes, own in columns]
    return np.concatenate(parts), list(known)


def used(codes: npt.NDArray[np.int32], names: Sequence[str]) -> list[str]:
    """The names that occur in a column, in order of first appearance."""
    first = first_places(codes, len(names))
    return [names[code] for code in np.argsort(first) if first[code] < len(codes)]


def times(step_R: Counts, phase_R: Counts, prefill_R: npt.NDArray[np.bool_], sequence_R: Counts, *, shared: bool) -> Counts:
    """The time of a row's batch, as a small number; prefill rows of a sequence without another row between their steps ran together.

    steps 0, 1, 2, 3, 4 with 0, 1 and 3 in prefill  ->  times 0, 0, 1, 2, 3
    """
    key_R = step_R * (phase_R.max() + 1) + phase_R if shared else phase_R * (step_R.max() + 1) + step_R
    first, place_R = distinct(key_R)
    alone = ~prefill_R[first]
    new = alone | np.concatenate([[True], alone[:-1] | (np.diff(sequence_R[first]) != 0)])
    return (np.cumsum(new) - 1)[place_R]


def distinct(key_R: Counts) -> tuple[Counts, Counts]:
    """The first row of every distinct key, in the order of the keys, and the number of every row's key, (R,).

    Nothing is sorted if the keys rise, as in a trace whose rows are in the order of their steps.
    """
    if (np.diff(key_R) >= 0).all():
        new_R = np.diff(key_R, prepend=key_R[:1] - 1) > 0
        return np.flatnonzero(new_R), np.cumsum(new_R) - 1
    _, first, place_R = np.unique(key_R, return_index=True, return_inverse=True)
    return first, place_R


def last_uses(key_R: Counts) -> Counts:
    """The last row of every distinct key, in the order of the keys."""
    order = np.argsort(key_R, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = np.diff(key_R[order]) != 0
    return order[last]
