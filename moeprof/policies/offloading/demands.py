"""What a step of a layer needs, and at which precision: from the decisions of its router to demands, in the order of expert ids.

T tokens, K choices, E experts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from moeprof.policies.offloading.planner import HIGH, SKIP, Demand
from moeprof.policies.offloading.rule import LoadRule, expert_unimportance, unimportance
from moeprof.records.arrays import Floats, Ints
from moeprof.records.recipe.offloading import Offloading


class Demands(Protocol):
    """Turns the decisions of a router into what a step needs."""

    def __call__(self, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> list[Demand]:
        """One demand per expert that has rows, ids rising; id E stands for no expert."""
        ...


def in_high(experts_TK: Ints, weights_TK: Floats, num_experts: int) -> list[Demand]:
    """Every expert at the model's own precision."""
    return [Demand(expert) for expert in active(experts_TK, num_experts)]


@dataclass(frozen=True)
class ByRule:
    """HOBBIT: an absent expert is loaded in high or low precision or skipped, by its unimportance."""

    rule: LoadRule
    low: str
    """The low precision."""

    def __call__(self, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> list[Demand]:
        kept_TK = experts_TK < num_experts
        least_E = expert_unimportance(experts_TK, unimportance(weights_TK), num_experts, kept_TK)
        decided_E, precisions = self.rule.decide(least_E), (HIGH, self.low, SKIP)
        return [Demand(expert, precisions[decided_E[expert]]) for expert in active(experts_TK, num_experts)]


@dataclass(frozen=True)
class ByRank:
    """M2Cache at the level of experts: the experts of a step by the share of their weight that its tokens give them.

    The first ones are in high precision, at least one.
    """

    shares: Mapping[str, float]
    """Of the step's experts, by precision, the highest first."""

    def __call__(self, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> list[Demand]:
        kept_TK = experts_TK < num_experts
        size_TK = np.abs(weights_TK) * kept_TK
        share_TK = size_TK / np.maximum(size_TK.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        weight_E = np.bincount(experts_TK[kept_TK], share_TK[kept_TK], num_experts)
        found = active(experts_TK, num_experts)
        ranked = sorted(found, key=lambda expert: (-weight_E[expert], expert))
        bounds = np.maximum(np.rint(np.cumsum(list(self.shares.values())) * len(ranked)), 1)
        places = np.searchsorted(bounds[:-1], np.arange(len(ranked)), side="right")
        precisions = {expert: list(self.shares)[place] for expert, place in zip(ranked, places, strict=True)}
        return [Demand(expert, precisions[expert]) for expert in found]


@dataclass(frozen=True)
class Reversed:
    """The placebo of demands by weight: of each token, the best choice has the weight of the worst, the second that of the last but one."""

    told: Demands

    def __call__(self, experts_TK: Ints, weights_TK: Floats, num_experts: int) -> list[Demand]:
        order_TK = np.argsort(-np.abs(weights_TK), axis=1, kind="stable")
        turned_TK = np.empty_like(weights_TK)
        np.put_along_axis(turned_TK, order_TK, np.take_along_axis(weights_TK, order_TK[:, ::-1], axis=1), axis=1)
        return self.told(experts_TK, turned_TK, num_experts)


def active(experts_TK: Ints, num_experts: int) -> list[int]:
    """The experts that have rows, ids rising."""
    counts_E = np.bincount(experts_TK.ravel(), minlength=num_experts)[:num_experts]
    return [int(expert) for expert in np.flatnonzero(counts_E)]


def demands_of(choice: Offloading) -> Demands:
    """What a system asks of its store: a mix of precisions by rank, HOBBIT's rule, or every expert at the model's precision."""
    if not choice.weighs:
        return in_high
    if choice.mix:
        found: Demands = ByRank(dict(zip((HIGH, *choice.low), choice.mix, strict=True)))
    else:
        found = ByRule(LoadRule(choice.t1, choice.t2), choice.low[0])
    return Reversed(found) if choice.reversed else found
