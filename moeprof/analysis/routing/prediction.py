"""How much of a step's experts a simple prediction covers: sets that never change, and the experts of the sequence's own prompt.

The prediction from the step before is `active_overlap`. Ties among equally hot experts go to the one that was used first.
Shape suffixes: E experts, T tokens, K choices of a token, S cells (sequence, expert).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moeprof.analysis.routing.hot_set import hottest_first, ranks_of
from moeprof.analysis.routing.layer_rows import Values, over_layers, rows_at
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.analysis.routing.token_choices import LayerTokens, PhaseTokens
from moeprof.records.arrays import Floats
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import TraceHeader

ALL_STEPS, FIRST_HALF, PROMPT = "run", "first half", "prompt"
"""Where the predicted experts were chosen; the first is no prediction, but the limit for sets that never change."""


def predicted_sizes(num_experts: int, top_k: int) -> list[int]:
    """Numbers of predicted experts: those of a token, doubled as long as there are more experts."""
    return [size for size in (top_k << power for power in range(num_experts.bit_length())) if size < num_experts]


def static_rows(
    header: TraceHeader, layers: Sequence[Sequence[LoadMatrix]], first_uses: Mapping[str, Counts]
) -> Iterator[MetricRow]:
    """Coverage by the hottest experts of all steps, and of the first half for the second; none of a layer with a single step.

    `first_uses` has the order, by layer, in which equally hot experts are chosen.
    """
    experts, sizes = header.num_experts, predicted_sizes(header.num_experts, header.top_k)
    covered: dict[str, dict[str, Values]] = {ALL_STEPS: {}, FIRST_HALF: {}}
    for matrices in layers:
        layer = matrices[0].layer
        first_E = first_uses[layer]
        if sum(matrix.num_steps for matrix in matrices) > 1:
            everything = [StepRange(matrix, 0, matrix.num_steps) for matrix in matrices]
            covered[ALL_STEPS][layer] = coverage(everything, everything, first_E, sizes)
        if several := [matrix for matrix in matrices if matrix.num_steps > 1]:
            earlier = [StepRange(matrix, 0, matrix.num_steps // 2) for matrix in several]
            later = [StepRange(matrix, matrix.num_steps // 2, matrix.num_steps) for matrix in several]
            covered[FIRST_HALF][layer] = coverage(earlier, later, first_E, sizes)
    for category, found in covered.items():
        yield from coverage_rows(header, found, category)
    if covered[ALL_STEPS]:
        for size in sizes:
            yield from rows_at(header, {"step_coverage_by_chance": size / experts}, point=point_of(size))


@dataclass(frozen=True, eq=False)
class StepRange:
    """The columns `first` to `last - 1` of a matrix."""

    matrix: LoadMatrix
    first: int
    last: int

    @property
    def cells(self) -> slice:
        """The cells of the columns."""
        low, high = np.searchsorted(self.matrix.column_N, (self.first, self.last))
        return slice(int(low), int(high))

    @property
    def counts_E(self) -> Counts:
        """The choices of every expert."""
        matrix, cells = self.matrix, self.cells
        return np.bincount(matrix.expert_N[cells], matrix.count_N[cells], matrix.num_experts).astype(np.int64)

    def covered(self, rank_E: Counts, size: int) -> Floats:
        """The share of each step's active experts that are among the first `size` of a ranking."""
        matrix, cells = self.matrix, self.cells
        hit_N = rank_E[matrix.expert_N[cells]] < size
        column_N = matrix.column_N[cells] - self.first
        return np.asarray(np.bincount(column_N, hit_N, self.last - self.first) / matrix.active_B[self.first : self.last])


def coverage(past: Sequence[StepRange], future: Sequence[StepRange], first_E: Counts, sizes: Sequence[int]) -> dict[str, float]:
    """By point: the mean share of a future step's experts that are among the hottest of the past."""
    rank_E = ranks_of(hottest_first(sum((part.counts_E for part in past), np.zeros_like(first_E)), first_E))
    return {point_of(size): float(np.concatenate([part.covered(rank_E, size) for part in future]).mean()) for size in sizes}


def prompt_rows(prompt: PhaseTokens, decode: PhaseTokens) -> Iterator[MetricRow]:
    """Coverage of a generated token's experts by the hottest of its own sequence's prompt, in the layers that both phases have."""
    sizes = predicted_sizes(decode.header.num_experts, decode.header.top_k)
    numbers = {owner: number for number, owner in enumerate(decode.sequences)}
    owner_S = np.array([numbers.get(owner, -1) for owner in prompt.sequences])
    prompts = {tokens.layer: tokens for tokens in prompt.layers}
    found: dict[str, Values] = {}
    for tokens in decode.layers:
        if tokens.layer in prompts:
            rank_TK = prompt_ranks(prompts[tokens.layer], owner_S[prompt.sequence_T], tokens, decode)
            if len(rank_TK):
                found[tokens.layer] = {point_of(size): float((rank_TK < size).mean()) for size in sizes}
    yield from coverage_rows(decode.header, found, PROMPT)


def prompt_ranks(prompt: LayerTokens, owner_T: Counts, tokens: LayerTokens, decode: PhaseTokens) -> Counts:
    """The place of every choice of the decoded tokens among the experts of their prompt, the hottest first; (T, K).

    Tokens of sequences without a prompt are left out; an expert that the prompt does not use comes after all others.
    """
    experts = decode.header.num_experts
    own_T = owner_T[prompt.token_T]
    cell_TK = (own_T[:, None] * experts + prompt.expert_TK)[own_T >= 0]
    cells_S, first_S, counts_S = np.unique(cell_TK.ravel(), return_index=True, return_counts=True)
    owner_S = cells_S // experts
    order_S = np.lexsort((first_S, -counts_S, owner_S))
    starts_S = np.searchsorted(owner_S[order_S], owner_S[order_S])
    rank_S = np.empty_like(order_S)
    rank_S[order_S] = np.arange(len(order_S)) - starts_S
    sequence_T = decode.sequence_T[tokens.token_T]
    known_T = np.isin(sequence_T, owner_S)
    wanted_TK = sequence_T[known_T, None] * experts + tokens.expert_TK[known_T]
    place_TK = np.minimum(np.searchsorted(cells_S, wanted_TK), max(len(cells_S) - 1, 0))
    return np.where(cells_S[place_TK] == wanted_TK, rank_S[place_TK], experts) if len(cells_S) else wanted_TK


def coverage_rows(header: TraceHeader, layers: Mapping[str, Values], category: str) -> Iterator[MetricRow]:
    """The rows of one predictor by point, per layer and over layers."""
    for layer, values in {**layers, "": over_layers(list(layers.values()))}.items():
        for point, value in values.items():
            yield from rows_at(header, {"step_coverage": value}, layer=layer, category=category, point=point)


def point_of(size: int) -> str:
    """The point of a number of predicted experts."""
    return format_point({"experts": size})
