"""Is there a hot set? The experts that the earlier half of the tokens chose most, judged by the choices of the later half.

The interval comes from resampling blocks of consecutive later tokens; all layers use the same blocks, because they share their
tokens. It holds for texts like the recorded ones: another domain is judged by rows of its own.

Shape suffixes: T tokens, E experts, C sizes of the set, M blocks of tokens, L layers, R resamples.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations
from math import ceil
from statistics import fmean
from typing import Literal

import numpy as np

from moeprof.analysis.routing.layer_rows import rows_at
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix
from moeprof.analysis.routing.token_choices import LayerTokens, PhaseTokens
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.arrays import Flags, Floats
from moeprof.records.metrics.number import number_of
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.routing_trace import TraceHeader

RESAMPLES, CONFIDENCE, SEED = 1000, 0.95, 0
MOST_BLOCKS = 1000

WORTH = 2
"""A set is hot if it serves more than this many times the choices that it would serve by chance."""

FEWEST = 10
"""The fewest later tokens that allow an answer."""

Answer = Literal["yes", "no", "too little evidence"]

PERCENTS = (50, 80, 95)
"""Shares of the later choices for which the size of the set is reported."""


def main_size(num_experts: int, top_k: int) -> int:
    """The size that the verdict is about: a quarter of the experts, but no fewer than a token chooses."""
    return max(-(-num_experts // 4), top_k)


def set_sizes(num_experts: int, top_k: int) -> list[int]:
    """The sizes that are reported: the choices of a token and a 16th, an 8th, a quarter and half of the experts."""
    parts = {-(-num_experts // part) for part in (16, 8, 4, 2)}
    return sorted(size for size in {*parts, top_k, main_size(num_experts, top_k)} if size < num_experts)


@dataclass(frozen=True, eq=False)
class Judged:
    """How the later tokens of one layer chose: blocks of them by size of the set, and experts by the earlier half."""

    hits_MC: Counts
    choices_M: Counts
    later_E: Counts
    """Choices by the later tokens, experts in the order of the earlier half, the hottest first."""

    @property
    def tokens(self) -> int:
        """Choices of all later tokens."""
        return int(self.choices_M.sum())


def hot_set_rows(phase: PhaseTokens) -> Iterator[MetricRow]:
    """Shares with intervals and sizes of the hot set, per layer and over layers; none of a phase whose domains have one token each."""
    header = phase.header
    sizes = set_sizes(header.num_experts, header.top_k)
    found = {tokens.layer: judged for tokens in phase.layers if (judged := judge(phase, tokens, sizes))}
    if not found:
        return
    yield from share_rows(header, found, sizes)
    yield from size_rows(header, {layer: judged.later_E for layer, judged in found.items()})
    later = max(judged.tokens for judged in found.values()) // header.top_k
    yield from rows_at(header, {"hot_set_tokens": later})


def judge(phase: PhaseTokens, tokens: LayerTokens, sizes: Sequence[int]) -> Judged | None:
    """The earlier half of each domain's tokens against its later half; None if a layer has no token in one of them."""
    later_T, block_T, num_blocks = halves_of(phase)
    is_later = later_T[tokens.token_T]
    if is_later.all() or not is_later.any():
        return None
    experts = phase.header.num_experts
    order_E = hottest_first(tokens.counts(experts, ~is_later), tokens.first_uses(experts, ~is_later))
    rank_TK = ranks_of(order_E)[tokens.expert_TK[is_later]]
    block_L = block_T[tokens.token_T[is_later]]
    hits_MC = [np.bincount(block_L, (rank_TK < size).sum(axis=1), num_blocks).astype(np.int64) for size in sizes]
    choices_M = np.bincount(block_L, minlength=num_blocks) * phase.header.top_k
    return Judged(np.stack(hits_MC, axis=1), choices_M, tokens.counts(experts, is_later)[order_E])


def halves_of(phase: PhaseTokens) -> tuple[Flags, Counts, int]:
    """Whether each token is in the later half of its domain (T,), the block of every later token (T,), and the number of blocks."""
    later_T = np.zeros(phase.num_tokens, bool)
    for first, last in pairwise(phase.bounds_D):
        later_T[first + (last - first) // 2 : last] = True
    number_T = np.cumsum(later_T) - 1
    total = int(later_T.sum())
    length = max(1, round(total ** (1 / 3)), ceil(total / MOST_BLOCKS))
    return later_T, number_T // length, ceil(total / length)


def hottest_first(counts_E: Counts, first_E: Counts) -> Counts:
    """The experts by falling number of choices, ties by first use, and then by id."""
    return np.lexsort((first_E, -counts_E))


def ranks_of(order_E: Counts) -> Counts:
    """The place of every expert in an order, (E,)."""
    rank_E = np.empty_like(order_E)
    rank_E[order_E] = np.arange(len(order_E))
    return rank_E


def share_rows(header: TraceHeader, found: Mapping[str, Judged], sizes: Sequence[int]) -> Iterator[MetricRow]:
    """The share of the later choices at the set, of every size, with its interval and its value by chance."""
    times_RM = resamples(max(len(judged.choices_M) for judged in found.values()))
    drawn: dict[str, Floats] = {}
    for layer, judged in found.items():
        drawn[layer] = ratio(times_RM @ judged.hits_MC, times_RM @ judged.choices_M)
        yield from interval_rows(header, share_of(judged), drawn[layer], sizes, layer)
    mean_C = np.mean([share_of(judged) for judged in found.values()], axis=0)
    yield from interval_rows(header, mean_C, np.nanmean(list(drawn.values()), axis=0), sizes)


def share_of(judged: Judged) -> Floats:
    """The share of the later choices at the set, by size, (C,)."""
    return np.asarray(judged.hits_MC.sum(axis=0) / judged.tokens)


def ratio(hits_RC: Floats, choices_R: Floats) -> Floats:
    """Hits over choices, (R, C); NaN in a resample without a choice of the layer."""
    return np.asarray(hits_RC / np.where(choices_R > 0, choices_R, np.nan)[:, None])


def resamples(num_blocks: int) -> Floats:
    """How often each block is drawn, (R, M)."""
    generator = np.random.default_rng(SEED)
    return generator.multinomial(num_blocks, np.full(num_blocks, 1 / num_blocks), size=RESAMPLES).astype(np.float64)


def interval_rows(
    header: TraceHeader, share_C: Floats, drawn_RC: Floats, sizes: Sequence[int], layer: str = ""
) -> Iterator[MetricRow]:
    """The share, the ends of its interval, and the share by chance of every size."""
    tail = (1 - CONFIDENCE) / 2
    low_C, high_C = np.nanquantile(drawn_RC, [tail, 1 - tail], axis=0)
    for size, share, low, high in zip(sizes, share_C, low_C, high_C, strict=True):
        values = {"hot_set_share": share, "hot_set_share_low": low, "hot_set_share_high": high}
        chance = {"hot_set_by_chance": size / header.num_experts}
        yield from rows_at(header, values | chance, layer=layer, point=format_point({"experts": size}))


def size_rows(header: TraceHeader, later: Mapping[str, Counts]) -> Iterator[MetricRow]:
    """The fewest experts, hottest of the earlier half first, that serve a share of the later choices; over layers the mean."""
    for percent in PERCENTS:
        point, found = (
            format_point({"percent": percent}),
            {layer: size_for(later_E, percent) for layer, later_E in later.items()},
        )
        for layer, size in found.items():
            yield from rows_at(header, {"hot_set_size": size}, layer=layer, point=point)
        yield from rows_at(header, {"hot_set_size": fmean(found.values())}, point=point)


def size_for(later_E: Counts, percent: int) -> int:
    """The fewest experts, in their order, with at least this share of the choices; compared in whole numbers."""
    return int(np.searchsorted(100 * np.cumsum(later_E), percent * int(later_E.sum()))) + 1


def elsewhere_rows(header: TraceHeader, layers: Sequence[Sequence[LoadMatrix]]) -> Iterator[MetricRow]:
    """The share of a domain's choices (`domain`) at the experts that another domain chose most (`category`)."""
    size = main_size(header.num_experts, header.top_k)
    pairs: dict[tuple[str, str], list[float]] = {}
    if size >= header.num_experts:
        return
    for matrices in layers:
        for one, other in permutations([matrix for matrix in matrices if matrix.domain], 2):
            share = share_elsewhere(one.counts_E, other.counts_E, size)
            pairs.setdefault((one.domain, other.domain), []).append(share)
            yield from elsewhere_row(header, share, size, one.domain, other.domain, one.layer)
    for (past, future), shares in pairs.items():
        yield from elsewhere_row(header, fmean(shares), size, past, future)


def elsewhere_row(header: TraceHeader, share: float, size: int, past: str, future: str, layer: str = "") -> Iterator[MetricRow]:
    """One share of a pair of domains."""
    point = format_point({"experts": size})
    return rows_at(header, {"hot_set_share": share}, layer=layer, domain=future, category=past, point=point)


def share_elsewhere(past_E: Counts, future_E: Counts, size: int) -> float:
    """The share of the future choices at the `size` experts with the most past ones; ties go to the lowest id."""
    hot = np.argsort(-past_E, kind="stable")[:size]
    return float(future_E[hot].sum() / future_E.sum())


@dataclass(frozen=True)
class HotSet:
    """The answer to the question whether a phase, or a layer of it, has a hot set of the size that is judged."""

    size: int
    share: float
    low: float
    high: float
    chance: float
    tokens: int

    @property
    def answer(self) -> Answer:
        """Whether the interval of the share is above or below WORTH times its value by chance."""
        if self.tokens < FEWEST or self.low <= WORTH * self.chance <= self.high:
            return "too little evidence"
        return "yes" if self.low > WORTH * self.chance else "no"


def recorded_hot_set(metrics: RunMetrics, phase: str, layer: str = "") -> HotSet | None:
    """The recorded numbers of the size that is judged; None without them, or if by chance the share would be 1 / WORTH or more."""
    trace = metrics.record.trace
    size = main_size(trace.num_experts, trace.top_k)
    here = metrics.at(phase=phase, variant=metrics.baseline, point=format_point({"experts": size}))
    share, low, high = (here.or_none(f"hot_set_share{end}", layer=layer) for end in ("", "_low", "_high"))
    chance = here.or_none("hot_set_by_chance", layer=layer)
    tokens = here.or_none("hot_set_tokens", point="")
    if share is None or low is None or high is None or tokens is None or WORTH * size >= trace.num_experts:
        return None
    return HotSet(size, share, low, high, size / trace.num_experts if chance is None else chance, int(tokens))


def elsewhere_shares(metrics: RunMetrics, phase: str) -> dict[tuple[str, str], float]:
    """The recorded shares over all layers, by the domain that the set was chosen in and the domain that it was judged by."""
    trace = metrics.record.trace
    point = format_point({"experts": main_size(trace.num_experts, trace.top_k)})
    rows = metrics.rows("hot_set_share", phase=phase, layer="", point=point)
    return {(row.key.category, row.key.domain): number_of(row) for row in rows if row.key.category}
