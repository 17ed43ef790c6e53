"""Placements that are made again along a trace: judged by a plain loop, and made from the past only."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.placement.device_load import top_shares
from moeprof.analysis.placement.rebalancing import Strategy, Timeline, busiest_shares, outcomes, placements_along, strategies_of
from moeprof.analysis.placement.trial import cluster_for, part_of
from moeprof.analysis.routing.count_matrix import matrix_of_counts
from moeprof.analysis.routing.load_matrix import Counts, LoadMatrix, layer_matrices, rank_of_rows
from moeprof.policies.balancing.balancer import Cluster
from tests.analysis.traces import Row, trace_of
from tests.policies.balancing.loads import COPYING

BALANCERS = ["contiguous", "greedy", "eplb-distinct"]


def drifting(seed: int, num_steps: int = 20, num_experts: int = 8) -> Counts:
    """Counts (E, B) of 40 choices in each step, whose hot experts change slowly."""
    generator = np.random.default_rng(seed)
    logits_BE = generator.normal(0, 0.5, (num_steps, num_experts)).cumsum(axis=0)
    shares_BE = np.exp(logits_BE) / np.exp(logits_BE).sum(axis=1, keepdims=True)
    return np.array([generator.multinomial(40, shares_E) for shares_E in shares_BE]).T


def timeline_of(counts_EB: Counts, window: int) -> Timeline:
    return Timeline.of([[matrix_of_counts("0", "", counts_EB, 1)]], window)


def clusters(names: list[str], experts: int = 8, devices: int = 4) -> dict[str, Cluster]:
    return {name: cluster_for(name, experts, devices, replicas=1) for name in names}


def greedy_by_hand(total_E: Counts, devices: int) -> list[set[int]]:
    members: list[set[int]] = [set() for _ in range(devices)]
    for expert in sorted(range(len(total_E)), key=lambda expert: -int(total_E[expert])):
        free = [device for device in range(devices) if len(members[device]) < len(total_E) // devices]
        members[min(free, key=lambda device: (sum(int(total_E[m]) for m in members[device]), device))].add(expert)
    return members


@pytest.mark.parametrize("seed", range(4))
def test_greedy_along_a_trace_is_what_a_plain_loop_finds(seed: int) -> None:
    counts_EB, strategy = drifting(seed), Strategy("greedy", "full", 4)
    found = outcomes(timeline_of(counts_EB, 6), clusters(["greedy"]), [strategy], most=1)[strategy]
    tops, held, moved = [], [{2 * device, 2 * device + 1} for device in range(4)], []
    for start in range(6, 20, 4):
        sets = greedy_by_hand(counts_EB[:, start - 6 : start].sum(axis=1), 4)
        tops += [max(counts_EB[list(own), step].sum() for own in sets) / 40 for step in range(start, min(20, start + 4))]
        moved.append(fewest_fetched(held, sets))
        held = sets
    assert found.tops["0"].tolist() == pytest.approx(tops)
    assert found.moved_R().tolist() == moved, "devices take the names that keep the most experts"


def fewest_fetched(held: list[set[int]], sets: list[set[int]]) -> int:
    """Experts that come to another device under the best of all names of devices."""
    if not held:
        return 0
    return min(len(sets[at] - held[0]) + fewest_fetched(held[1:], [*sets[:at], *sets[at + 1 :]]) for at in range(len(sets)))


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 6))
@settings(max_examples=30, deadline=None)
def test_the_future_changes_no_placement(seed: int, window: int, every: int) -> None:
    generator = np.random.default_rng(seed)
    counts_EB, cut = drifting(seed), int(generator.integers(window, 20))
    other_EB = np.concatenate([counts_EB[:, :cut], generator.integers(1, 9, (8, 20 - cut))], axis=1)
    strategies = strategies_of(BALANCERS, [every])
    one, other = (
        placements_along(
            timeline, timeline.layers["0"], clusters(BALANCERS), strategies, 1, lambda layer, weights_E, steps: 0.0
        )
        for timeline in (timeline_of(counts_EB, window), timeline_of(other_EB, window))
    )
    for strategy in strategies:
        known = sum(at <= cut for at in timeline_of(counts_EB, window).times(strategy))
        assert known >= 1
        assert np.array_equal(one[strategy][:known], other[strategy][:known])


@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_incremental_placement_moves_few_experts_and_loads_are_shares(seed: int, most: int) -> None:
    strategies = strategies_of(BALANCERS, [3])
    found = outcomes(timeline_of(drifting(seed), 5), clusters(BALANCERS), strategies, most=most)
    for strategy, outcome in found.items():
        assert len(outcome.tops["0"]) == 15
        assert (outcome.tops["0"] >= 0.25 - 1e-12).all()
        assert (outcome.tops["0"] <= 1).all()
        received_RD = outcome.moved["0"][:, 0] + outcome.moved["0"][:, 2]
        assert strategy.schedule != "incremental" or received_RD[1:].max() <= most
        assert strategy.schedule != "fixed" or not received_RD.any()
    assert np.array_equal(found[Strategy("greedy", "once")].tops["0"][:3], found[Strategy("greedy", "full", 3)].tops["0"][:3])


def test_a_high_price_of_moves_leaves_incremental_placement_where_it_is() -> None:
    strategies = [Strategy("greedy", "once"), Strategy("greedy", "incremental", 3)]
    timeline = timeline_of(drifting(1), 5)
    dear = outcomes(timeline, clusters(["greedy"]), strategies, most=4, least=lambda layer, weights_E, every: 1.0)
    assert np.array_equal(dear[strategies[0]].tops["0"], dear[strategies[1]].tops["0"])
    assert dear[strategies[1]].moved_R()[1:].sum() == 0
    free = outcomes(timeline, clusters(["greedy"]), strategies, most=4)
    assert free[strategies[1]].moved_R()[1:].sum() > 0


def test_layers_without_loads_in_a_window_are_placed_as_if_loads_were_equal() -> None:
    early, late = matrix_of_counts("0", "", drifting(0), 1), matrix_of_counts("1", "", drifting(1) * (np.arange(20) > 9), 1)
    timeline = Timeline.of([[early], [late]], 4)
    found = outcomes(timeline, clusters(BALANCERS), strategies_of(BALANCERS, [5]), most=2)
    for outcome in found.values():
        assert {layer: len(top_B) for layer, top_B in outcome.tops.items()} == {"0": 16, "1": 10}


def matrix_of_ranks(seed: int) -> LoadMatrix:
    """The loads of two ranks."""
    generator = np.random.default_rng(seed)
    traces = [
        trace_of(
            [Row(step, int(generator.integers(6)), sequence=token) for step in range(7) for token in range(1 + 3 * rank)],
            num_experts=6,
        )
        for rank in range(2)
    ]
    rows = trace_of([row for trace in traces for row in rows_of(trace.table.to_pylist())], num_experts=6)
    return next(iter(layer_matrices(rows, rank_R=rank_of_rows(traces))))[0]


def rows_of(table: list[dict[str, object]]) -> list[Row]:
    return [Row(**{name: one[name] for name in Row._fields}) for one in table]  # type: ignore[arg-type]


@given(st.integers(0, 2**32 - 1), st.sampled_from([(3, 2), (2, 5), (6, 2), (1, 7)]))
@settings(max_examples=40, deadline=None)
def test_the_compiled_loop_finds_the_same_busiest_devices(seed: int, shape: tuple[int, int]) -> None:
    generator, matrix = np.random.default_rng(seed), matrix_of_ranks(seed)
    devices, slots = shape
    slots_DS = np.append(generator.permutation(6), generator.integers(0, 6, devices * slots - 6)).reshape(shape)
    first, last = sorted(generator.integers(0, 8, 2).tolist())
    expected = top_shares(part_of(matrix, first, last), slots_DS) if last > first else np.array([])
    assert busiest_shares(matrix, slots_DS, first, last).tolist() == pytest.approx(expected.tolist())


def test_every_balancer_can_be_repeated() -> None:
    names = ["contiguous", "round-robin", "greedy", "anti-correlation", *COPYING]
    nodes = {name: cluster_for(name, 8, 4, nodes=2, groups=4, replicas=1) for name in names}
    found = outcomes(timeline_of(drifting(0), 5), nodes, strategies_of(names, [2, 7]), most=1)
    assert [strategy for strategy in found if strategy.balancer == "greedy"] == [
        Strategy("greedy", "once"),
        Strategy("greedy", "full", 2),
        Strategy("greedy", "full", 7),
        Strategy("greedy", "incremental", 2),
        Strategy("greedy", "incremental", 7),
    ]
    assert [strategy for strategy in found if strategy.balancer == "round-robin"] == [
        Strategy("round-robin", "fixed"),
        Strategy("round-robin", "incremental", 2),
        Strategy("round-robin", "incremental", 7),
    ]
    assert all(len(outcome.tops["0"]) == 15 for outcome in found.values())
