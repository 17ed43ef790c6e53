"""The decisions of a stack, step by step: what becomes of every expert, and copies that change by themselves."""

import numpy as np

from moeprof.policies.offloading.decisions import OffloadDecisions
from moeprof.policies.offloading.demands import in_high
from moeprof.policies.offloading.foresight import LastStep, WholeLayers
from moeprof.policies.offloading.planner import HIGH, Planner
from moeprof.policies.offloading.priority import Lru

Events = list[tuple[int, int, str]]


def steps(decisions: OffloadDecisions, *routing: tuple[int, list[int]], num_experts: int = 2) -> list[Events]:
    """Layer, expert and event of everything that happens in each step."""
    found = []
    for layer, experts in routing:
        experts_TK = np.array([experts])
        step = decisions.step(layer, experts_TK, np.ones(experts_TK.shape), num_experts)
        decisions.foresee(step)
        found.append([(unit.layer, unit.expert, event) for unit, event in step.events()])
    return found


def test_the_first_use_after_a_prefetch_is_foreseen_and_later_ones_are_hits() -> None:
    whole = WholeLayers(2, 1, [2, 2], HIGH)
    decisions = OffloadDecisions(Planner(2, {HIGH: 2}, Lru(), per_layer=True), in_high, whole)
    assert steps(decisions, (0, [0]), (1, [1]), (0, [0, 1]), (1, [0, 1]), (0, [1])) == [
        [(0, 0, "demand"), (1, 0, "prefetch"), (1, 1, "prefetch")],
        [(1, 1, "foreseen"), (0, 1, "prefetch")],
        [(0, 0, "hit"), (0, 1, "foreseen")],
        [(1, 0, "foreseen"), (1, 1, "hit")],
        [(0, 1, "hit")],
    ]


def test_a_copy_knows_the_steps_before_it_and_none_after_it() -> None:
    decisions = OffloadDecisions(Planner(2, {HIGH: 2}, Lru(), per_layer=True), in_high, LastStep(2))
    steps(decisions, (0, [0]), (1, [1]), num_experts=4)
    copied = decisions.copied()
    steps(decisions, (0, [2, 3]), (1, [2, 3]), num_experts=4)
    assert steps(copied, (0, [0]), (1, [1]), num_experts=4) == [[(0, 0, "hit")], [(1, 1, "hit")]]
    assert steps(decisions, (0, [2]), (1, [1]), num_experts=4) == [[(0, 2, "hit")], [(1, 1, "demand")]]
