"""Balancers that make copies: DeepSeek's own example, and what holds for any loads."""

import json
from itertools import combinations, combinations_with_replacement
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.policies.balancing.balancer import Cluster, History
from moeprof.policies.balancing.registry import BALANCERS, placed
from moeprof.policies.balancing.replication import replicated
from tests.policies.balancing.loads import COPYING, correlated_groups, device_shares, history_of, largest_share, zipf


def test_the_example_of_eplb_comes_out_slot_by_slot(shared_data: Path) -> None:
    example = json.loads((shared_data / "reference" / "eplb_readme.json").read_text())
    devices = example["num_gpus"]
    cluster = Cluster(devices, example["num_replicas"] // devices, example["num_nodes"], example["num_groups"])
    found = [placed("eplb-hierarchical", History.of_totals(weights), cluster).ravel().tolist() for weights in example["weight"]]
    assert found == example["phy2log"]
    for weights, slots in zip(example["weight"], example["phy2log"], strict=True):
        # group by group of three experts, each is on one node of four devices
        nodes = np.array(slots).reshape(2, -1)
        assert not set((nodes[0] // 3).tolist()) & set((nodes[1] // 3).tolist())
        assert len(weights) == len(set(slots))


def test_one_node_of_one_group_is_the_global_policy() -> None:
    for seed in range(3):
        history = history_of(correlated_groups(seed, 20))
        whole = placed("eplb", history, Cluster(8, 18))
        assert placed("eplb-hierarchical", history, Cluster(8, 18, 1, 1)).tolist() == whole.tolist()


@given(st.lists(st.integers(1, 30), min_size=2, max_size=4), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_no_other_number_of_copies_leaves_a_smaller_part(weights: list[int], extra: int) -> None:
    slots = replicated(np.array(weights) / sum(weights), len(weights) + extra)
    parts = [weight / count for weight, count in zip(weights, np.bincount(slots).tolist(), strict=True)]
    every = combinations_with_replacement(range(len(weights)), extra)
    best = min(max(weight / (1 + more.count(expert)) for expert, weight in enumerate(weights)) for more in every)
    assert max(parts) == pytest.approx(best)


def test_copies_that_would_help_alike_go_to_the_lowest_id() -> None:
    assert replicated(np.array([0.3, 0.3, 0.4]), 6).tolist() == [0, 1, 2, 2, 0, 1]
    assert replicated(np.full(3, 1 / 3), 5).tolist() == [0, 1, 2, 0, 1]


@given(st.sampled_from(COPYING), st.integers(1, 4), st.integers(1, 5), st.integers(1, 12), st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_all_slots_are_filled_and_every_expert_stands_somewhere(
    name: str, devices: int, num_slots: int, experts: int, seed: int
) -> None:
    num_slots = min(num_slots, experts)
    experts = min(experts, devices * num_slots)
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.full(experts, 0.3)) * generator.choice([0, 1])
    slots_DS = placed(name, History.of_totals(weights), Cluster(devices, num_slots))
    assert slots_DS.shape == (devices, num_slots)
    assert set(slots_DS.ravel().tolist()) == set(range(experts))
    if not BALANCERS[name].repeats:
        assert all(len(set(row)) == num_slots for row in slots_DS.tolist())


@given(st.integers(2, 4), st.integers(1, 3), st.integers(2, 3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_group_of_experts_stays_on_one_node(nodes: int, groups_each: int, size: int, seed: int) -> None:
    groups = nodes * groups_each
    weights = np.random.default_rng(seed).dirichlet(np.full(groups * size, 0.5))
    slots_DS = placed("eplb-hierarchical", History.of_totals(weights), Cluster(2 * nodes, groups_each * size, nodes, groups))
    homes = [{int(device) // 2 for device in np.nonzero((slots_DS // size == group).any(axis=1))[0]} for group in range(groups)]
    assert all(len(home) == 1 for home in homes)
    assert sorted(home.pop() for home in homes) == sorted(list(range(nodes)) * groups_each)


KINDS = {
    "zipf 0.8": zipf(512, 0.8),
    "zipf 1.2": zipf(512),
    "zipf 2": zipf(512, 2),
    "even": np.ones(512),
    "drawn": np.random.default_rng(0).exponential(size=512),
    "spread": np.random.default_rng(1).lognormal(0, 2, 512),
}


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize(("devices", "num_slots"), [(256, 3), (16, 33), (8, 65)])
def test_without_a_copy_beside_a_copy_the_largest_load_is_no_worse(kind: str, devices: int, num_slots: int) -> None:
    cluster = Cluster(devices, num_slots)
    whole = largest_share(KINDS[kind], "eplb", cluster)
    for name in ("eplb-distinct", "mean-square-copies"):
        assert largest_share(KINDS[kind], name, cluster) <= 1.02 * whole


def test_where_no_placement_without_such_copies_reaches_eplb_the_best_is_found() -> None:
    weights, cluster = [0.5, 0.3, 0.2], Cluster(2, 2)
    assert largest_share(weights, "eplb", cluster) == pytest.approx(0.5)
    pairs = [set(pair) for pair in combinations(range(3), 2)]
    possible = [
        max(sum(weights[expert] / ((expert in one) + (expert in other)) for expert in device) for device in (one, other))
        for one, other in combinations_with_replacement(pairs, 2)
        if one | other == {0, 1, 2}
    ]
    assert min(possible) == pytest.approx(0.55)
    assert largest_share(weights, "eplb-distinct", cluster) == pytest.approx(0.55)


def test_a_hot_expert_that_crowds_the_others_out_gets_fewer_copies() -> None:
    cluster = Cluster(16, 33)
    for name in ("eplb-distinct", "mean-square-copies"):
        assert largest_share(zipf(512, 2), name, cluster) < 0.8 * largest_share(zipf(512, 2), "eplb", cluster)


@pytest.mark.parametrize("name", COPYING)
def test_copies_pass_the_floor_of_the_hottest_expert(name: str) -> None:
    weights = zipf(128)
    assert largest_share(weights, name, Cluster(8, 17)) < weights[0] / weights.sum() / 1.5


def test_copies_help_on_steps_that_were_not_seen() -> None:
    shares_EB = np.random.default_rng(3).multinomial(512, zipf(128) / zipf(128).sum(), 60).T / 512
    history, test_EB = history_of(shares_EB[:, :30]), shares_EB[:, 30:]
    mean = {
        name: device_shares(test_EB, placed(name, history, Cluster(8, slots))).max(axis=0).mean()
        for name, slots in (("contiguous", 16), ("greedy", 16), ("eplb", 18), ("eplb-distinct", 18))
    }
    assert mean["greedy"] < 0.4 < 0.6 < mean["contiguous"]
    assert max(mean["eplb"], mean["eplb-distinct"]) < 0.16
