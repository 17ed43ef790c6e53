"""The experts of every token, token by token, in the order in which a phase was recorded.

Shape suffixes: R rows of the trace, T tokens, K choices of a token, D domains, E experts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from moeprof.analysis.routing.load_matrix import Counts, grouped, rank_of_rows
from moeprof.analysis.routing.regroup import together
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

MOST_KEYS = 2**55
"""The most tuples that are numbered without a gap; times a choice's number they are still far from the limit of 64 bits."""


@dataclass(frozen=True, eq=False)
class LayerTokens:
    """The choices of the tokens that a layer received."""

    layer: str
    token_T: Counts
    """The number of every token in the phase, ascending."""
    expert_TK: npt.NDArray[np.int32]
    """Its experts, first choice first."""

    def first_uses(self, num_experts: int, keep_T: npt.NDArray[np.bool_] | None = None) -> Counts:
        """The order in which the experts of these tokens occur for the first time, (E,); those that do not occur come last."""
        flat = (self.expert_TK if keep_T is None else self.expert_TK[keep_T]).ravel()
        first_E = np.full(num_experts, len(flat))
        first_E[flat[::-1]] = np.arange(len(flat))[::-1]  # of repeated places the last assignment stays, here the first use
        return first_E

    def counts(self, num_experts: int, keep_T: npt.NDArray[np.bool_] | slice = slice(None)) -> Counts:
        """The choices of every expert by these tokens, (E,)."""
        return np.bincount(self.expert_TK[keep_T].ravel(), minlength=num_experts)


@dataclass(frozen=True, eq=False)
class PhaseTokens:
    """The tokens of one phase, domain after domain, in each in the order of steps, ranks, sequences and positions."""

    header: TraceHeader
    domains: Sequence[str]
    bounds_D: Counts
    """The first token of every domain, and the number of all tokens, (D + 1,)."""
    sequences: Sequence[tuple[str, int, int]]
    """Domain, rank and sequence of every sequence."""
    sequence_T: Counts
    """The index in `sequences` of every token."""
    layers: Sequence[LayerTokens]

    @property
    def num_tokens(self) -> int:
        """The number of tokens of any layer."""
        return int(self.bounds_D[-1])


def phase_tokens(ranks: Sequence[RoutingTrace]) -> PhaseTokens:
    """The tokens of all ranks of a phase; in every layer a token has as many choices as the header says."""
    trace, rank_R = together(ranks), rank_of_rows(ranks)
    domain_R, domains = trace.codes("domain")
    step_R, sequence_R, position_R = (trace.column(name) for name in ("step", "sequence", "position"))
    token_R = combined([domain_R, step_R, rank_R, sequence_R, position_R])
    found = [(layer, first_T, expert_TK) for layer, first_T, expert_TK in choices_by_layer(trace, token_R)]
    first_P = np.concatenate([first_T for _, first_T, _ in found])
    tokens, place_T = np.unique(token_R[first_P], return_index=True)
    row_T = first_P[place_T]
    owner_T = combined([domain_R[row_T], rank_R[row_T], sequence_R[row_T]])
    _, place_S, sequence_T = np.unique(owner_T, return_index=True, return_inverse=True)
    row_S = row_T[place_S]
    return PhaseTokens(
        header=trace.header,
        domains=domains,
        bounds_D=np.searchsorted(domain_R[row_T], np.arange(len(domains) + 1)),
        sequences=[
            (domains[domain], rank, sequence)
            for domain, rank, sequence in zip(*(of_R[row_S].tolist() for of_R in (domain_R, rank_R, sequence_R)), strict=True)
        ],
        sequence_T=sequence_T,
        layers=[
            LayerTokens(layer, np.searchsorted(tokens, token_R[first_T]), expert_TK) for layer, first_T, expert_TK in found
        ],
    )


def choices_by_layer(trace: RoutingTrace, token_R: Counts) -> Iterator[tuple[str, Counts, npt.NDArray[np.int32]]]:
    """Every layer of the header that has rows: the row of every token's first choice (T,), and the choices (T, K), tokens ascending."""
    layer_R, layers = trace.codes("layer")
    rows_R, starts = grouped(layer_R.astype(np.int64), len(layers))
    expert_R, slot_R, top_k = trace.column("expert"), trace.column("slot"), trace.header.top_k
    for layer in (name for name in trace.header.layers if name in layers):
        place = layers.index(layer)
        rows = rows_R[starts[place] : starts[place + 1]]
        key = token_R[rows] * top_k + slot_R[rows]
        if (key[1:] < key[:-1]).any():
            rows = rows[np.argsort(key, kind="stable")]
        if len(rows):
            yield layer, rows[::top_k], expert_R[rows].reshape(-1, top_k)


def combined(columns: Sequence[npt.NDArray[np.integer]]) -> Counts:
    """One number for every tuple of non-negative whole numbers in parallel columns, in the order of the tuples."""
    key, size = np.zeros(len(columns[0]), np.int64), 1
    for column in columns:
        width = int(column.max(initial=0)) + 1
        if size * width > MOST_KEYS:
            known, key = np.unique(key, return_inverse=True)
            size = len(known)
        key, size = key * width + column, size * width
    return key
