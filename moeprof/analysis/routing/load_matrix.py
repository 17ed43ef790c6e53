"""The load matrix: the number of choices that every expert of a layer received in every step (paper figure 6; its A[m, b]).

Shape suffixes: E experts, B steps in which the layer had a token, K choices of a token, N cells of the matrix that are not 0,
R rows of the trace, W ranks whose tokens made the choices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from moeprof.records.arrays import Floats
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

Counts = npt.NDArray[np.int64]

DENSE = 8
"""Keys are dense if their range is at most this many times their number."""


@dataclass(frozen=True, eq=False)
class LoadMatrix:
    """Choices of one layer by expert and step; domain "" is over all of them.

    Only steps in which the layer had a token have a column, so every share can be computed. Only the cells that are not 0 are
    stored, because a step of one token uses few of many experts; `counts_EB` is the whole matrix.
    """

    layer: str
    domain: str
    num_experts: int
    """The number of experts E, including those that no step uses."""
    top_k: int
    steps_B: Counts
    """The number of the step behind each column, ascending."""
    tokens_B: Counts
    """Tokens of every step, without padding."""
    dropped_tokens_B: Counts
    """Tokens that lost at least one choice."""
    dropped_KB: Counts
    """Choices over capacity, by choice: row 0 has the first choices."""
    column_N: Counts
    """The column of every cell, ascending."""
    expert_N: Counts
    """The expert of every cell, ascending within a column."""
    count_WN: Counts
    """Choices that the router made, including those dropped later, by the rank of their tokens."""
    dropped_WN: Counts
    """The choices among `count_WN` that were over capacity."""

    @property
    def num_steps(self) -> int:
        """The number of steps B."""
        return len(self.steps_B)

    @property
    def num_tokens(self) -> int:
        """The number of tokens of all steps."""
        return int(self.tokens_B.sum())

    @cached_property
    def count_N(self) -> Counts:
        """The cells of `counts_EB`, over all ranks."""
        return over_ranks(self.count_WN)

    @cached_property
    def dropped_N(self) -> Counts:
        """The cells of `dropped_EB`, over all ranks."""
        return over_ranks(self.dropped_WN)

    @cached_property
    def counts_EB(self) -> Counts:
        """The number of choices by expert and step."""
        return dense(self, self.count_N)

    @cached_property
    def counts_by_rank(self) -> list[Counts]:
        """The number of choices of every rank's tokens, W times (E, B)."""
        return [self.counts_EB] if len(self.count_WN) == 1 else [dense(self, count_N) for count_N in self.count_WN]

    @cached_property
    def dropped_EB(self) -> Counts:
        """The number of choices over capacity by expert and step."""
        return dense(self, self.dropped_N)

    @property
    def shares_EB(self) -> Floats:
        """A[m, b]: share of a step's choices that an expert takes; columns sum to 1."""
        return dense(self, self.shares_N)

    def first_shares(self, num_steps: int) -> Floats:
        """The first columns of `shares_EB`, at most `num_steps` of them, as rows."""
        cells = slice(0, int(np.searchsorted(self.column_N, num_steps)))
        shares_BE = np.zeros((min(num_steps, self.num_steps), self.num_experts))
        shares_BE[self.column_N[cells], self.expert_N[cells]] = self.shares_N[cells]
        return shares_BE

    @property
    def shares_N(self) -> Floats:
        """The cells of `shares_EB`."""
        return self.count_N / self.choices_B[self.column_N]

    @property
    def starts_B(self) -> Counts:
        """The index of the first cell of every column."""
        return np.searchsorted(self.column_N, np.arange(self.num_steps))

    @property
    def choices_B(self) -> Counts:
        """Choices of every step over all experts: top_k x tokens, unless rows are missing."""
        return np.add.reduceat(self.count_N, self.starts_B)

    @property
    def counts_E(self) -> Counts:
        """Choices of every expert over all steps."""
        return np.bincount(self.expert_N, self.count_N, minlength=self.num_experts).astype(np.int64)

    @property
    def shares_E(self) -> Floats:
        """Share of all choices that an expert takes; sums to 1."""
        return self.counts_E / int(self.count_N.sum())

    @property
    def max_share_B(self) -> Floats:
        """Share of the hottest expert of every step."""
        return np.asarray(np.maximum.reduceat(self.count_N, self.starts_B) / self.choices_B)

    @property
    def active_B(self) -> Counts:
        """Experts with at least one choice, per step."""
        return np.bincount(self.column_N, minlength=self.num_steps)

    @property
    def inactive_B(self) -> Counts:
        """Experts without a choice, per step (paper figure 7)."""
        return self.num_experts - self.active_B

    @property
    def active_bound_B(self) -> Counts:
        """The most experts that the tokens of a step can reach: min(E, top_k x tokens)."""
        return np.minimum(self.num_experts, self.top_k * self.tokens_B)

    @property
    def dead_E(self) -> npt.NDArray[np.bool_]:
        """Experts that no step uses."""
        return np.asarray(self.counts_E == 0)


def over_ranks(values_WN: Counts) -> Counts:
    """The sum over ranks, (N,)."""
    return np.asarray(values_WN[0] if len(values_WN) == 1 else values_WN.sum(axis=0))


def dense(matrix: LoadMatrix, values_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The matrix with these values in its cells and 0 elsewhere, (E, B); step by step in memory, as the trace is."""
    whole_BE = np.zeros((matrix.num_steps, matrix.num_experts), values_N.dtype)
    whole_BE[matrix.column_N, matrix.expert_N] = values_N
    return whole_BE.T


def load_matrices(trace: RoutingTrace, *, slot: int | None = None) -> list[LoadMatrix]:
    """One matrix per layer and domain that has rows, layers in the header's order.

    With `slot` only the choices of that number count (0: first choices), as if the router had top_k = 1.
    """
    return [matrix for matrices in layer_matrices(trace, slot=slot) for matrix in matrices]


def rank_of_rows(traces: Sequence[RoutingTrace]) -> Counts:
    """The rank of every row, (R,), after the traces of several ranks were joined in order."""
    return np.repeat(np.arange(len(traces)), [len(trace) for trace in traces])


def layer_matrices(trace: RoutingTrace, *, slot: int | None = None, rank_R: Counts | None = None) -> Iterator[list[LoadMatrix]]:
    """For each layer its matrices by domain, made one layer at a time, so that long traces need the memory of one layer only.

    `rank_R` is the rank of every row; without it all rows are of one rank.
    """
    layer_R, layers = trace.codes("layer")
    domain_R, domains = trace.codes("domain")
    rows_R, starts = grouped(layer_R.astype(np.int64) * len(domains) + domain_R, len(layers) * len(domains))
    columns = {name: trace.column(name) for name in ("step", "sequence", "position", "expert", "slot", "dropped")}
    columns["rank"] = np.zeros(len(trace), np.int64) if rank_R is None else rank_R
    num_ranks = 1 if rank_R is None else int(rank_R.max(initial=0)) + 1
    for layer in (name for name in trace.header.layers if name in layers):
        matrices = []
        for number, domain in enumerate(domains):
            group = layers.index(layer) * len(domains) + number
            rows = rows_R[starts[group] : starts[group + 1]]
            rows = rows if slot is None else rows[columns["slot"][rows] == slot]
            if len(rows):
                matrices.append(
                    load_matrix(trace.header, layer, domain, columns, rows, num_ranks=num_ranks, single=slot is not None)
                )
        if matrices:
            yield matrices


def grouped(group_R: Counts, num_groups: int) -> tuple[Counts, Counts]:
    """Row indices sorted by group, in their order within it, (R,), and the start of each group, (num_groups + 1,)."""
    narrow_R = group_R.astype(np.min_scalar_type(num_groups))  # numpy sorts small integers by radix
    starts = np.zeros(num_groups + 1, np.int64)
    np.cumsum(np.bincount(narrow_R, minlength=num_groups), out=starts[1:])
    return np.argsort(narrow_R, kind="stable"), starts


def load_matrix(
    header: TraceHeader,
    layer: str,
    domain: str,
    columns: Mapping[str, npt.NDArray[Any]],
    rows: Counts,
    *,
    num_ranks: int,
    single: bool,
) -> LoadMatrix:
    """The matrix of the trace's `rows`; `single` if they hold one choice per token."""
    expert, slot, lost, rank = (columns[name][rows] for name in ("expert", "slot", "dropped", "rank"))
    steps_B, column = numbered(columns["step"][rows])
    cells_N, place = numbered(column * header.num_experts + expert)
    lost_token = distinct([column[lost], *(columns[name][rows[lost]] for name in ("sequence", "position"))])
    return LoadMatrix(
        layer=layer,
        domain=domain,
        num_experts=header.num_experts,
        top_k=1 if single else header.top_k,
        steps_B=steps_B,
        tokens_B=by_slot(slot, column, header.top_k, len(steps_B)).max(axis=0),  # a token has one choice per slot
        dropped_tokens_B=np.bincount(column[lost][lost_token], minlength=len(steps_B)),
        dropped_KB=by_slot(slot[lost], column[lost], header.top_k, len(steps_B)),
        column_N=cells_N // header.num_experts,
        expert_N=cells_N % header.num_experts,
        count_WN=by_slot(rank, place, num_ranks, len(cells_N)),
        dropped_WN=by_slot(rank[lost], place[lost], num_ranks, len(cells_N)),
    )


def numbered(key_R: npt.NDArray[Any]) -> tuple[Counts, Counts]:
    """The distinct keys, ascending, and the place of every row's key among them; without sorting if the keys are dense."""
    size = int(key_R.max(initial=-1)) + 1
    if size > DENSE * len(key_R) or key_R.min(initial=0) < 0:
        keys_N, place_R = np.unique(key_R, return_inverse=True)
        return keys_N.astype(np.int64), place_R
    present = np.zeros(size, bool)
    present[key_R] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[key_R]


def by_slot(slot: npt.NDArray[Any], column: Counts, num_slots: int, num_columns: int) -> Counts:
    """How often each (slot, column) occurs, (K, B); also used for (rank, cell), (W, N)."""
    return np.bincount(slot * np.int64(num_columns) + column, minlength=num_slots * num_columns).reshape(num_slots, num_columns)


def distinct(keys: Sequence[npt.NDArray[Any]]) -> Counts:
    """One index for each distinct tuple of the parallel arrays `keys`."""
    order = np.lexsort(keys)
    new = np.ones(len(order), bool)
    new[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    return order[new]


def pooled(matrices: Sequence[LoadMatrix]) -> LoadMatrix:
    """One layer over all its domains; a step that several of them share becomes one column.

    Cells are keyed by column x E + expert; cells with the same key are added. Two domains with E = 2:

        a: steps 0, 1   cells (step 0, expert 1): 3   (step 1, expert 0): 2
        b: steps 1, 2   cells (step 1, expert 0): 4   (step 2, expert 1): 1
        pooled: steps 0, 1, 2   keys 1, 2, 5   counts 3, 2 + 4 = 6, 1
    """
    one = matrices[0]
    if {matrix.layer for matrix in matrices} != {one.layer}:
        raise ValueError("only matrices of one layer can be pooled")
    if len(matrices) == 1:
        return replace(one, domain="") if one.domain else one
    step_P = np.concatenate([matrix.steps_B for matrix in matrices])
    steps_B, step_order, step_starts = merged(step_P)
    column_P = np.searchsorted(steps_B, step_P)
    ends = np.cumsum([matrix.num_steps for matrix in matrices])
    columns = [part[matrix.column_N] for matrix, part in zip(matrices, np.split(column_P, ends[:-1]), strict=True)]
    expert_P = np.concatenate([matrix.expert_N for matrix in matrices])
    cells_N, cell_order, cell_starts = merged(np.concatenate(columns) * one.num_experts + expert_P)

    def summed(name: str, order: Counts, starts: Counts) -> Counts:
        parts = np.concatenate([getattr(matrix, name) for matrix in matrices], axis=-1)
        return np.add.reduceat(parts[..., order], starts, axis=-1)

    by_step: dict[str, Any] = {
        name: summed(name, step_order, step_starts) for name in ("tokens_B", "dropped_tokens_B", "dropped_KB")
    }
    by_cell: dict[str, Any] = {name: summed(name, cell_order, cell_starts) for name in ("count_WN", "dropped_WN")}
    column_N, expert_N = np.divmod(cells_N, one.num_experts)
    return replace(one, domain="", steps_B=steps_B, column_N=column_N, expert_N=expert_N, **by_step, **by_cell)


def merged(keys_P: Counts) -> tuple[Counts, Counts, Counts]:
    """Distinct keys of several ascending parts, the order that sorts the parts, and the start of each key in that order.

    keys 0, 1, 1, 2 (parts 0, 1 and 1, 2)  ->  keys 0, 1, 2   order 0, 1, 2, 3   starts 0, 1, 3
    """
    order_P = np.argsort(keys_P, kind="stable")  # linear for a few ascending parts
    sorted_P = keys_P[order_P]
    starts = np.flatnonzero(np.diff(sorted_P, prepend=sorted_P[0] - 1))
    return sorted_P[starts], order_P, starts
