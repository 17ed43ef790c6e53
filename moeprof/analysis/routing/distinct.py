"""How many distinct experts a step of N tokens reaches: measured by grouping consecutive tokens, beside what is expected.

Shape suffixes: T tokens of a domain, K choices of a token, E experts, G groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean

import numpy as np
import numpy.typing as npt

from moeprof.analysis.routing.chance import expected_distinct, expected_shuffled
from moeprof.analysis.routing.layer_rows import Values, over_layers, rows_at
from moeprof.analysis.routing.load_matrix import LoadMatrix
from moeprof.analysis.routing.token_choices import LayerTokens, PhaseTokens
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import TraceHeader

MOST_TOKENS = 4096
"""The largest group; sizes are the powers of two up to it."""


def distinct_rows(phase: PhaseTokens) -> Iterator[MetricRow]:
    """The rows of every size of which there is a whole group, per layer and over the layers that have one."""
    yield from rows_by_size(phase.header, {tokens.layer: layer_distinct(phase, tokens) for tokens in phase.layers})


def expected_rows(header: TraceHeader, layers: Sequence[Sequence[LoadMatrix]]) -> Iterator[MetricRow]:
    """The expected numbers alone, from the loads of every layer by domain; the mean over domains that have as many tokens."""
    found: dict[str, dict[int, Values]] = {matrices[0].layer: {} for matrices in layers}
    for size in (1 << power for power in range(MOST_TOKENS.bit_length())):
        for matrices in layers:
            shuffled = [
                expected_shuffled(matrix.counts_E, matrix.num_tokens, size) for matrix in matrices if matrix.num_tokens >= size
            ]
            if shuffled:
                found[matrices[0].layer][size] = expected_values(header, size, fmean(shuffled))
    yield from rows_by_size(header, found)


def expected_values(header: TraceHeader, size: int, shuffled: float) -> dict[str, float]:
    """What is expected of a group of `size` tokens."""
    by_chance = float(expected_distinct(header.num_experts, header.top_k, np.array(size)))
    return {"distinct_experts_by_chance": by_chance, "distinct_experts_shuffled": shuffled}


def rows_by_size(header: TraceHeader, layers: Mapping[str, Mapping[int, Values]]) -> Iterator[MetricRow]:
    """The values of every layer and size, and of every size over the layers that have it."""
    for layer, sizes in layers.items():
        for size, values in sizes.items():
            yield from rows_at(header, values, layer=layer, point=format_point({"tokens": size}))
    for size in sorted({size for sizes in layers.values() for size in sizes}):
        found = [sizes[size] for sizes in layers.values() if size in sizes]
        yield from rows_at(header, over_layers(found), point=format_point({"tokens": size}))


def layer_distinct(phase: PhaseTokens, tokens: LayerTokens) -> dict[int, Values]:
    """By size of the group: the distinct experts of one layer, measured and expected; groups do not extend over domains."""
    experts = phase.header.num_experts
    measured: dict[int, int] = {}
    expected: dict[int, float] = {}
    groups: dict[int, int] = {}
    bounds = np.searchsorted(tokens.token_T, phase.bounds_D)
    for first, last in pairwise(bounds):
        expert_TK = tokens.expert_TK[first:last]
        counts_E = np.bincount(expert_TK.ravel(), minlength=experts)
        for size, (total, number) in distinct_by_size(expert_TK, experts).items():
            measured[size] = measured.get(size, 0) + total
            groups[size] = groups.get(size, 0) + number
            expected[size] = expected.get(size, 0) + number * expected_shuffled(counts_E, len(expert_TK), size)
    return {
        size: {"distinct_experts": measured[size] / groups[size]}
        | expected_values(phase.header, size, expected[size] / groups[size])
        for size in sorted(groups)
    }


def distinct_by_size(expert_TK: npt.NDArray[np.int32], num_experts: int) -> dict[int, tuple[int, int]]:
    """By group size, a power of two: distinct experts summed over groups, and the number of groups; a rest of tokens is left out."""
    found: dict[int, tuple[int, int]] = {}
    for start in range(0, len(expert_TK), MOST_TOKENS):
        part_TK = expert_TK[start : start + MOST_TOKENS]
        used_GE = np.zeros((len(part_TK), num_experts), bool)
        used_GE[np.arange(len(part_TK))[:, None], part_TK] = True
        size = 1
        while len(used_GE):
            total, number = found.get(size, (0, 0))
            found[size] = total + int(used_GE.sum()), number + len(used_GE)
            pairs = len(used_GE) // 2
            used_GE = used_GE[0 : 2 * pairs : 2] | used_GE[1 : 2 * pairs : 2]
            size *= 2
    return found
