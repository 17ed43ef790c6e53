"""Forced routing: decisions drawn from a distribution, or read from a recorded trace, instead of the router's.

Draws are pure functions of (seed, layer, sequence, position), so every variant, batch size and pass sees the same ones.
T tokens, K choices, E experts.
"""

import hashlib
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from moeprof.instrument.step import Step
from moeprof.records.arrays import Ints
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.routing_source import RoutingSource, parse_routing_source
from moeprof.records.traces.formats import read_routing
from moeprof.records.traces.routing_trace import RoutingTrace

Words = npt.NDArray[np.uint64]
Decisions = tuple[Ints, npt.NDArray[np.float32] | None]
DecisionTable = tuple[Ints, Ints, npt.NDArray[np.float32]]
"""Sorted token keys (N,), their experts (N, K) and softmax values (N, K); the last row is for tokens that the trace lacks."""

NO_TOKEN = np.iinfo(np.int64).max
BEGINNINGS = {"prefill": "score"}
"""A run records no prompts; they are the beginnings of the sequences that its phase `score` recorded."""


class DecisionSource(Protocol):
    """Decisions for any step, computed on the host."""

    def draw(self, layer: str, step: Step) -> Decisions:
        """Experts (T, K), and their softmax values, or None to use those of the router."""
        ...


class ForcedRouting:
    """Decisions cached on the device by layer and step, so that timed rounds only look them up."""

    def __init__(self, source: DecisionSource) -> None:
        self.source = source
        self.drawn: dict[tuple[str, Step], tuple[Tensor, Tensor | None]] = {}

    def decide(self, layer: str, step: Step, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """The decisions of `layer` at `step`, (T, K)."""
        key = layer, step  # a step is known by identity: others may share its number and size, and hold other tokens
        if key not in self.drawn:
            experts_TK, weights_TK = self.source.draw(layer, step)
            weights = None if weights_TK is None else torch.from_numpy(weights_TK).to(device)
            self.drawn[key] = torch.from_numpy(experts_TK).to(device), weights
        return self.drawn[key]


class ZipfSource:
    """K distinct experts per token; the r-th hottest expert has a weight of 1 / r^exponent (exponent 0: uniform)."""

    def __init__(self, source: RoutingSource, num_experts: int, top_k: int) -> None:
        self.source, self.num_experts, self.top_k = source, num_experts, top_k

    def draw(self, layer: str, step: Step) -> Decisions:
        """Gumbel top-k: the K largest of log weight + noise are a draw without replacement (Kool et al. 2019)."""
        assert step.sequence_T is not None
        assert step.position_T is not None
        key = stream_key(self.source.seed, layer)
        sequence_T = step.sequence_T.astype(np.uint64)
        origin_T = self.refreshed(key, sequence_T, step.position_T.astype(np.int64)).astype(np.uint64)
        token_T = mixed(key ^ mixed(sequence_T << np.uint64(32) | origin_T))
        noise_TE = uniforms(mixed(token_T[:, None] + np.arange(1, self.num_experts + 1).astype(np.uint64)))
        scores_TE = self.log_weights(key) - np.log(-np.log(noise_TE))
        return np.argsort(-scores_TE, axis=1, kind="stable")[:, : self.top_k].astype(np.int64), None

    def log_weights(self, key: np.uint64) -> npt.NDArray[np.float64]:
        """The log weight of every expert, (E,)."""
        by_heat = -self.source.exponent * np.log(np.arange(1, self.num_experts + 1))
        if self.source.sorted:
            return by_heat
        order = np.argsort(mixed(key + np.arange(self.num_experts, dtype=np.uint64)), kind="stable")
        weights = np.empty_like(by_heat)
        weights[order] = by_heat
        return weights

    def refreshed(self, key: np.uint64, sequence_T: Words, position_T: Ints) -> Ints:
        """The position whose draw each token uses, (T,): its own, or with probability `sticky` that of the token before it."""
        origin_T = position_T.copy()
        while self.source.sticky:
            coin_T = uniforms(mixed(~key ^ mixed(sequence_T << np.uint64(32) | origin_T.astype(np.uint64))))
            keeps_T = (coin_T < self.source.sticky) & (origin_T > 0)
            if not keeps_T.any():
                break
            origin_T -= keeps_T
        return origin_T


class RecordedSource:
    """The decisions of a recorded trace, by layer, phase, sequence and position."""

    def __init__(self, traces: list[RoutingTrace], num_experts: int, top_k: int) -> None:
        self.tables: dict[tuple[str, str], DecisionTable] = {}
        self.empty = with_no_token([], np.empty((0, top_k), np.int64), np.empty((0, top_k), np.float32))
        for trace in traces:
            header = trace.header
            if (header.num_experts, header.top_k) != (num_experts, top_k):
                raise UsageError(
                    f"routing.source: the trace has {header.num_experts} experts and top_k {header.top_k}, "
                    f"the recipe {num_experts} and {top_k}",
                    "Use a trace with the experts and top_k of the recipe.",
                )
            for layer in header.layers:
                self.tables[layer, header.phase] = lookup_table(trace.select(layer=layer), top_k)

    def draw(self, layer: str, step: Step) -> Decisions:
        """MoeprofError if the trace lacks a token of this step."""
        assert step.sequence_T is not None
        assert step.position_T is not None
        keys_N, experts_NK, weights_NK = self.table(layer, step.phase)
        wanted_T = token_keys(step.sequence_T, step.position_T)
        index_T = np.searchsorted(keys_N, wanted_T)
        real_T = np.ones(len(wanted_T), bool) if step.real_T is None else step.real_T.cpu().numpy()
        if (missing_T := real_T & (keys_N[index_T] != wanted_T)).any():
            first = int(missing_T.argmax())
            raise MoeprofError(
                f"routing trace: no decision for layer {layer}, phase {step.phase}, sequence {step.sequence_T[first]}, "
                f"position {step.position_T[first]}",
                "Use the recipe, text and number of batches that the trace was recorded with.",
            )
        return experts_NK[index_T], weights_NK[index_T]

    def table(self, layer: str, phase: str) -> DecisionTable:
        """The decisions of a layer in a phase; an empty table if the trace has none."""
        beginning = self.tables.get((layer, BEGINNINGS.get(phase, phase)), self.empty)
        return self.tables.get((layer, phase), beginning)


def lookup_table(trace: RoutingTrace, top_k: int) -> DecisionTable:
    """The decisions of one layer, with 1 / K for unknown softmax values; UsageError unless every token has K distinct choices."""
    keys = token_keys(trace.column("sequence"), trace.column("position"))
    order = np.lexsort((trace.column("slot"), keys))
    if len(order) % top_k:
        raise broken_trace()
    keys_NK, slots_NK, experts_NK, weights_NK = (
        column[order].reshape(-1, top_k)
        for column in (keys, trace.column("slot"), trace.column("expert").astype(np.int64), trace.column("weight"))
    )
    together = (keys_NK == keys_NK[:, :1]).all() and (slots_NK == np.arange(top_k)).all()
    if not (together and np.diff(keys_NK[:, 0]).all() and np.diff(np.sort(experts_NK), axis=1).all()):
        raise broken_trace()
    return with_no_token(keys_NK[:, 0], experts_NK, np.where(np.isfinite(weights_NK), weights_NK, np.float32(1 / top_k)))


def with_no_token(keys_N: npt.ArrayLike, experts_NK: Ints, weights_NK: npt.NDArray[np.float32]) -> DecisionTable:
    """The table with NO_TOKEN appended, so that every search ends at a row."""
    top_k = experts_NK.shape[1]
    return (
        np.append(np.asarray(keys_N, np.int64), NO_TOKEN),
        np.vstack([experts_NK, np.arange(top_k)]),
        np.vstack([weights_NK, np.full(top_k, 1 / top_k, np.float32)]),
    )


def broken_trace() -> UsageError:
    """The error of a trace in which a token's choices are incomplete or repeated."""
    return UsageError(
        "routing.source: the trace has a token with too few, too many or repeated choices", "Use a complete trace."
    )


def token_keys(sequence_T: npt.NDArray[np.int32], position_T: npt.NDArray[np.int32]) -> Ints:
    """One sortable number per token."""
    return sequence_T.astype(np.int64) << 32 | position_T.astype(np.int64)


def make_forced_routing(recipe: Recipe) -> ForcedRouting | None:
    """The forced routing of the recipe, or None if the model's routers decide."""
    source = parse_routing_source(recipe.routing.source)
    num_experts, top_k = recipe.model.experts, recipe.gating.top_k
    if source.kind == "model":
        return None
    if source.path is None:
        return ForcedRouting(ZipfSource(source, num_experts, top_k))
    return ForcedRouting(RecordedSource(read_routing(source.path), num_experts, top_k))


def stream_key(seed: int, layer: str) -> np.uint64:
    """A 64-bit key for the draws of one layer."""
    return np.uint64(int.from_bytes(hashlib.sha256(f"{seed}/{layer}".encode()).digest()[:8], "little"))


def mixed(words: Words) -> Words:
    """The finaliser of splitmix64 (Steele et al. 2014): every input bit affects every output bit."""
    with np.errstate(over="ignore"):
        words = words + np.uint64(0x9E3779B97F4A7C15)
        words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return words ^ (words >> np.uint64(31))


def uniforms(words: Words) -> npt.NDArray[np.float64]:
    """Numbers strictly between 0 and 1."""
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
