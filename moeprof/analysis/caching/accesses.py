"""What caches of experts see of a routing trace: batch after batch, the distinct experts that a layer's step uses.

A batch is one step of one layer. In a log in which every token is a step (`as_logged`), neighbouring prefill steps are one
batch, for they ran together; its experts are in the order of their last use in the log, which is also the router's order where
a batch is one token. Otherwise they are in the order of their ids, in which a layer runs them (paper 5.2).

Shape suffixes: R rows of the traces, N accesses, L layers, P phases, D domains.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from moeprof.analysis.caching.miss_counts import Accesses
from moeprof.analysis.routing.load_matrix import Counts
from moeprof.records.run.replay import PREFILL
from moeprof.records.traces.routing_trace import RoutingTrace


@dataclass(frozen=True, eq=False)
class Stream:
    """Every access of a trace, in order."""

    layers: Sequence[str]
    phases: Sequence[str]
    domains: Sequence[str]
    num_experts: int
    layer_N: Counts
    """Index of the layer, as the next ones are of the phase and the domain."""
    phase_N: Counts
    domain_N: Counts
    expert_N: Counts
    batch_N: Counts
    """Never falling."""
    batches_PL: Counts
    """Of each layer in a phase: its steps."""

    def __len__(self) -> int:
        return len(self.expert_N)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(L, P, D)."""
        return len(self.layers), len(self.phases), len(self.domains)

    @property
    def steps_P(self) -> Counts:
        """Of a phase: those of the layer that has most of them."""
        return np.asarray(self.batches_PL.max(axis=1))

    @cached_property
    def cell_N(self) -> Counts:
        """Where an access is counted: (layer, phase, domain) as one number."""
        _, phases, domains = self.shape
        return (self.layer_N * phases + self.phase_N) * domains + self.domain_N

    def counted(self, keep_N: npt.NDArray[np.bool_] | None = None) -> Counts:
        """Accesses, or those that are kept, (L, P, D)."""
        cells = self.cell_N if keep_N is None else self.cell_N[keep_N]
        return np.bincount(cells, minlength=int(np.prod(self.shape))).reshape(self.shape).astype(np.int64)

    def device_N(self, num_devices: int) -> Counts:
        """The device of every access, where each holds as many neighbouring experts."""
        return self.expert_N * num_devices // self.num_experts

    def accesses(self, keep_N: npt.NDArray[np.bool_]) -> Accesses:
        """Those that one cache sees; a block is an expert of a layer, and cells are the groups."""
        blocks_N = self.layer_N * self.num_experts + self.expert_N
        return Accesses(blocks_N[keep_N], self.batch_N[keep_N], self.cell_N[keep_N])


def stream_of(traces: Mapping[str, Sequence[RoutingTrace]], layers: Sequence[str], *, as_logged: bool) -> Stream:
    """The accesses of some phases, one after another, each with a trace per rank; ranks take every step together.

    `layers` in the order of execution. In a log phases take turns as their steps are numbered, elsewhere they follow each other.
    """
    phases = list(traces)
    parts = [(index, trace) for index, phase in enumerate(phases) for trace in traces[phase]]
    layer_R, _ = renamed([trace.codes("layer") for _, trace in parts], layers)
    domain_R, domains = renamed([trace.codes("domain") for _, trace in parts])
    phase_R = np.concatenate([np.full(len(trace), index) for index, trace in parts])
    step_R, expert_R = (
        np.concatenate([trace.column(name).astype(np.int64) for _, trace in parts]) for name in ("step", "expert")
    )
    prefill_R = phase_R == phases.index(PREFILL) if as_logged and PREFILL in phases else np.zeros(len(phase_R), bool)
    time_R = times(step_R, phase_R, prefill_R, logged=as_logged)
    num_experts = parts[0][1].header.num_experts
    batch_R = time_R * len(layers) + layer_R
    kept = last_uses(batch_R * num_experts + expert_R)
    if as_logged:
        kept = kept[np.lexsort((kept, batch_R[kept]))]
    starts = np.flatnonzero(np.diff(batch_R[kept], prepend=-1))
    batches = np.bincount(phase_R[kept][starts] * len(layers) + layer_R[kept][starts], minlength=len(phases) * len(layers))
    return Stream(
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
    """Columns of several traces as one (R,) of indices into one list of names: the given ones first."""
    known = dict.fromkeys([*names, *(name for codes, own in columns for name in used(codes, own))])
    place = {name: index for index, name in enumerate(known)}
    parts = [np.array([place.get(name, -1) for name in own], np.int64)[codes] for codes, own in columns]
    return np.concatenate(parts), list(known)


def used(codes: npt.NDArray[np.int32], names: Sequence[str]) -> list[str]:
    """The names that a column holds, in order of first appearance."""
    values, first = np.unique(codes, return_index=True)
    return [names[code] for code in values[np.argsort(first)]]


def times(step_R: Counts, phase_R: Counts, prefill_R: npt.NDArray[np.bool_], *, logged: bool) -> Counts:
    """When a row's batch ran, as a small number; prefill rows with no other row between their steps ran together."""
    key_R = step_R * (phase_R.max() + 1) + phase_R if logged else phase_R * (step_R.max() + 1) + step_R
    _, first, place_R = np.unique(key_R, return_index=True, return_inverse=True)
    alone = ~prefill_R[first]
    new = alone | np.concatenate([[True], alone[:-1]])
    return (np.cumsum(new) - 1)[place_R]


def last_uses(key_R: Counts) -> Counts:
    """The last row of every distinct key, in the order of the keys."""
    order = np.argsort(key_R, kind="stable")
    last = np.ones(len(order), bool)
    last[:-1] = np.diff(key_R[order]) != 0
    return order[last]
