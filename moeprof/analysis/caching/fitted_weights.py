"""HOBBIT's eviction weights, fitted on the first half of a trace's steps and judged on the other half.

All mixes are tried in pools that admit a whole step before they evict (policies/offloading/fitting.py), because these can be compiled; what
the best mix is worth is then counted with the decisions of a running model.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import numpy as np

from moeprof.analysis.caching.offloading_replay import ReplayedModel, UnitBytes, replayed_events
from moeprof.analysis.caching.routed_steps import RoutedStep
from moeprof.policies.offloading.decisions import planner_of
from moeprof.policies.offloading.demands import demands_of
from moeprof.policies.offloading.fitting import TwoPools, fit_weights
from moeprof.policies.offloading.planner import HIGH as OWN
from moeprof.policies.offloading.planner import SKIP as NOTHING
from moeprof.policies.offloading.requests import ExpertRequests
from moeprof.policies.offloading.rule import HIGH, LOW, SKIP
from moeprof.records.recipe.offloading import Offloading

SINGLE = {"recency": (1.0, 0.0, 0.0, 0.0), "frequency": (0.0, 1.0, 0.0, 0.0)}
SINGLE |= {"uses in high precision": (0.0, 0.0, 1.0, 0.0), "distance of layers": (0.0, 0.0, 0.0, 1.0)}
"""Mixes of one weight alone, by what it weighs."""


class FittedChoice(NamedTuple):
    """A system with its fitted weights, and the bytes that it and single weights load on demand in the held-out half."""

    choice: Offloading
    held_out_bytes: int
    single_bytes: dict[str, int]


def fitted_choice(
    choice: Offloading, model: ReplayedModel, steps: Sequence[RoutedStep], unit_bytes: Sequence[UnitBytes]
) -> FittedChoice:
    """The weights that load least on the first half of the steps of the last stack, which generates."""
    middle = (max(step.time for step in steps) + 1) // 2
    stack = model.stacks()[-1]
    early = [step for step in steps if step.time < middle and step.layer in stack]
    sizes = [unit_bytes[place] for place in stack]
    slots = planner_of(replace(choice, weights=SINGLE["recency"]), model.slots, sizes, model.num_experts).capacities
    (low,) = choice.low
    pools = TwoPools(slots[OWN], slots[low], len(stack), model.num_experts, sizes[0][low] / sizes[0][OWN])
    found = fit_weights(requests_of_steps(choice, early, stack[0], model.num_experts), pools).weights
    fitted = replace(choice, weights=(found.lru, found.lfu, found.lhu, found.fld))

    @cache
    def held_out(weights: tuple[float, ...]) -> int:
        """Bytes on demand in the other half, in slots that the first half filled."""
        rows = replayed_events(model, replace(choice, weights=weights), steps, unit_bytes, counted_from=middle)
        return sum(row["bytes"] for row in rows if row["event"] == "demand")

    return FittedChoice(fitted, held_out(fitted.weights), {name: held_out(weights) for name, weights in SINGLE.items()})


def requests_of_steps(choice: Offloading, steps: Sequence[RoutedStep], first_layer: int, num_experts: int) -> ExpertRequests:
    """What the steps ask of the pools."""
    demands, kinds = demands_of(choice), {OWN: HIGH, NOTHING: SKIP}
    rows = [
        (step.layer - first_layer, one.expert, step.time, 0, kinds.get(one.precision, LOW))
        for step in steps
        for one in demands(step.experts_TK, step.weights_TK, num_experts)
    ]
    return ExpertRequests(*np.array(rows, np.int64).reshape(-1, 5).T)
