"""Decisions of an offloading system, step by step, and the slots that its bytes give it."""

import numpy as np
import pytest

from moeprof.policies.offloading.decisions import Arrangement, OffloadingDecisions, capacities, planner_of
from moeprof.policies.offloading.demands import demands_of
from moeprof.policies.offloading.foresight import LastStep
from moeprof.policies.offloading.planner import HIGH, SKIP, Demand
from moeprof.records.errors import UsageError
from moeprof.records.recipe.offloading import parsed

BYTES = {HIGH: 4096 * 8, "int4": 4096 * 2}
M2CACHE = {HIGH: 4096 * 8, "int8": 4096 * 4, "int4": 4096 * 2}


def test_the_bytes_of_the_slots_are_divided_among_precisions_and_what_is_left_goes_to_the_next() -> None:
    # 8 slots of 8 pages in each of 2 layers: 128 pages; 0.75 of them hold 12 experts, 0.25 hold 16 packed ones
    assert capacities(parsed("hobbit"), 8, 2, BYTES, most=32) == {HIGH: 12, "int4": 16}
    # 3 slots per layer: 0.7 x 24 pages = 16.8, which hold 2 experts; 8 pages are left, which hold 4 packed ones
    assert capacities(parsed("hobbit:per-layer=yes,shares=.7:.3"), 3, 2, BYTES, most=32) == {HIGH: 2, "int4": 4}
    assert capacities(parsed("hobbit"), 32, 1, BYTES, most=32) == {HIGH: 24, "int4": 32}


def test_a_share_that_holds_no_expert_is_refused() -> None:
    with pytest.raises(UsageError, match="75% of the bytes of 1 slots hold no expert in high precision"):
        capacities(parsed("hobbit:per-layer=yes"), 1, 2, BYTES, most=32)


def decisions(text: str, slots: int, layers: int = 2, experts: int = 4, depth: int = 0) -> OffloadingDecisions:
    choice = parsed(text)
    planner = planner_of(choice, slots, [M2CACHE] * layers, experts)
    return OffloadingDecisions(planner, demands_of(choice), LastStep(layers, depth) if depth else None)


def events(system: OffloadingDecisions, layer: int, *experts: int) -> list[tuple[int, str, str]]:
    """Those of a step of one token that weighs its choices 0.5, 0.25, ..."""
    step = system.step(layer, np.array([experts]), 0.5 ** np.arange(1, len(experts) + 1)[None], 4)
    system.ahead(step)
    return list(step.events())


def test_what_was_used_least_recently_is_loaded_again() -> None:
    system = decisions("on-demand", slots=2)
    assert [event for _, _, event in events(system, 0, 1, 2)] == ["demand", "demand"]
    assert [event for _, _, event in events(system, 0, 2, 3)] == ["hit", "demand"]
    assert [event for _, _, event in events(system, 0, 1, 3)] == ["demand", "hit"]


def test_a_prefetched_expert_is_foreseen_at_its_first_use_and_a_hit_afterwards() -> None:
    system = decisions("on-demand", slots=2, depth=1)
    events(system, 0, 0)
    events(system, 1, 1)
    events(system, 1, 2)
    events(system, 1, 3)  # 1 has left the two slots of layer 1
    assert events(system, 0, 0) == [(0, HIGH, "hit")]
    system.foresight.history[1] = system.demands(np.array([[1]]), np.array([[1.0]]), 4)  # type: ignore[union-attr]
    assert events(system, 0, 0) == [(0, HIGH, "hit"), (1, HIGH, "prefetch")]
    assert events(system, 1, 1) == [(1, HIGH, "foreseen")]
    assert events(system, 1, 1) == [(1, HIGH, "hit")]


def test_a_prefetched_expert_that_is_evicted_unused_was_not_foreseen() -> None:
    system = decisions("on-demand", slots=1, depth=1)
    events(system, 1, 1)
    events(system, 1, 2)
    system.foresight.history[1] = system.demands(np.array([[1]]), np.array([[1.0]]), 4)  # type: ignore[union-attr]
    assert events(system, 0, 0)[-1] == (1, HIGH, "prefetch")
    assert [event for _, _, event in events(system, 1, 3)] == ["demand"]
    assert [event for _, _, event in events(system, 1, 1)] == ["demand"]


@pytest.mark.parametrize("text", ["on-demand", "on-demand:eviction=fifo", "on-demand:eviction=weighted", "m2cache"])
def test_a_cleared_system_decides_as_a_new_one(text: str) -> None:
    system, fresh = decisions(text, slots=2, depth=1), decisions(text, slots=2, depth=1)
    for layer, expert in ((0, 0), (1, 1), (0, 2), (1, 3)):
        events(system, layer, expert)
    system.clear()
    for layer, experts in ((0, (1, 2)), (1, (0, 3)), (0, (2, 3)), (1, (0, 1))):
        assert events(system, layer, *experts) == events(fresh, layer, *experts)


def test_resident_experts_come_first_and_of_the_others_those_with_the_most_rows() -> None:
    arrange = Arrangement("johnson", 4, {HIGH: 100.0, "int4": 30.0}, call_ns=10, row_ns=1)
    demands = [Demand(0), Demand(1), Demand(2), Demand(3), Demand(4, SKIP)]
    order = arrange(demands, [True, False, True, True, True], [1, 9, 5, 3, 2])
    assert [one.expert for one in order] == [4, 1, 2, 3, 0]
