"""Virtual expert parallelism: flows counted choice by choice, times by hand."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moeprof.analysis.placement.device_load import device_counts
from moeprof.analysis.placement.virtual_parallel import DeviceLinks, between_nodes, choices_of, flows, times_ns
from moeprof.analysis.routing.load_matrix import layer_matrices, load_matrices, pooled, rank_of_rows
from moeprof.policies.balancing.balancer import Cluster
from moeprof.records.traces.routing_trace import joined
from tests.analysis.traces import Row, drawn_rows, steps_of, trace_of


@given(
    st.lists(drawn_rows(layers=("1",)), min_size=1, max_size=2),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=80, deadline=None)
def test_flows_are_those_of_the_choices_one_by_one(ranks: list[list[Row]], devices: int, nodes: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    slots_DS = np.concatenate([generator.permutation(5), generator.integers(0, 5, 3)]).reshape(devices, -1)
    rows = [(rank, row) for rank, own in enumerate(ranks) for row in own]
    assume(rows)
    found = choices_of([trace_of(own, num_experts=5) for own in ranks], "1")
    assert found is not None
    nodes = min(nodes, devices)
    seen = flows(found, slots_DS, Cluster(devices, slots_DS.shape[1], nodes))
    once: set[tuple[int, int, int, int]] = set()
    pairs, near, far = Counter[tuple[int, int]](), Counter[tuple[int, int, str]](), Counter[tuple[int, int, str]]()
    for index, step in enumerate(sorted({row.step for _, row in rows})):
        mine = [(rank, row) for rank, row in rows if row.step == step]
        tokens = sorted({(rank, row.sequence, row.position) for rank, row in mine})
        used: Counter[tuple[int, int]] = Counter()
        for rank, row in sorted(mine, key=lambda one: (one[1].slot, one[1].sequence, one[1].position)):
            dealt = tokens.index((rank, row.sequence, row.position)) * devices // len(tokens)
            home = rank if devices == len(ranks) else dealt
            copies = [device for device, held in enumerate(slots_DS.tolist()) for expert in held if expert == row.expert]
            target = copies[(used[rank, row.expert] + step + rank) % len(copies)]
            used[rank, row.expert] += 1
            pairs[home, target] += 1
            once.add((row.step, tokens.index((rank, row.sequence, row.position)), home, target))
            if home != target:
                kind = near if home * nodes // devices == target * nodes // devices else far
                kind[index, home, "sent"] += 1
                kind[index, target, "received"] += 1
    assert seen.pairs_DD.tolist() == [[pairs[a, b] for b in range(devices)] for a in range(devices)]
    unique = Counter((home, target) for _, _, home, target in once)
    assert seen.unique_DD.tolist() == [[unique[a, b] for b in range(devices)] for a in range(devices)]
    node_once = {(step, token, home * nodes // devices, target * nodes // devices) for step, token, home, target in once}
    of_nodes = Counter((home, target) for _, _, home, target in node_once)
    assert seen.node_unique_VV.tolist() == [[of_nodes[a, b] for b in range(nodes)] for a in range(nodes)]
    for counted, expected in ((seen.near_BD, near), (seen.far_BD, far)):
        assert counted.tolist() == [
            [max(expected[step, device, "sent"], expected[step, device, "received"]) for device in range(devices)]
            for step in range(len(counted))
        ]


@given(st.lists(drawn_rows(layers=("1",)), min_size=1, max_size=3), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_devices_receive_what_their_load_is(ranks: list[list[Row]], seed: int) -> None:
    generator = np.random.default_rng(seed)
    slots_DS = np.concatenate([generator.permutation(5), generator.integers(0, 5, 4)]).reshape(3, 3)
    assume(any(ranks))
    top_k = max(row.slot for rows in ranks for row in rows) + 1
    traces = [trace_of(rows, num_experts=5) for rows in ranks]
    header = traces[0].header.model_copy(update={"top_k": top_k})
    together = joined(header, [trace.table for trace in traces])
    found = choices_of(traces, "1")
    assert found is not None
    (matrices,) = layer_matrices(together, rank_R=rank_of_rows(traces))
    received_D = flows(found, slots_DS, Cluster(3, 3)).pairs_DD.sum(axis=0)
    assert received_D.tolist() == device_counts(pooled(matrices), slots_DS).sum(axis=1).tolist()


def test_every_rank_deals_its_own_tokens_to_the_copies() -> None:
    # two tokens a rank for expert 0, which stands on both devices: each rank starts with another copy
    ranks = [trace_of(steps_of([0], [0, 0])), trace_of(steps_of([0], [0, 0]))]
    slots_DS = np.array([[0, 1, 2], [0, 3, 1]])
    found = choices_of(ranks, "1")
    assert found is not None
    assert found.served_R(slots_DS).tolist() == [0, 1, 1, 0, 0, 1]
    (matrices,) = layer_matrices(joined(ranks[0].header, [one.table for one in ranks]), rank_R=rank_of_rows(ranks))
    assert device_counts(pooled(matrices), slots_DS).tolist() == [[1, 2], [1, 2]]
    (alone,) = load_matrices(ranks[0])
    assert device_counts(alone, slots_DS).tolist() == [[1, 1], [0, 1]]


def test_times_by_hand() -> None:
    # four tokens, one on each of four devices in two nodes, all to expert 0 on device 0
    found = choices_of([trace_of(steps_of([0, 0, 0, 0]))], "1")
    assert found is not None
    seen = flows(found, np.arange(4)[:, None], Cluster(4, 1, 2))
    assert seen.pairs_DD[:, 0].tolist() == [1, 1, 1, 1]
    assert between_nodes(seen.pairs_DD, 2).tolist() == [[2, 0], [2, 0]]
    assert seen.near_BD.tolist() == [[1, 1, 0, 0]]
    assert seen.far_BD.tolist() == [[2, 0, 1, 1]]
    # 1000 bytes a token; a near token takes 100 ns, a far one 1000 ns, both ways twice that
    slowest, waiting = times_ns(seen, 1000, DeviceLinks(near=10**10, far=10**9))
    assert slowest == pytest.approx(4000)
    assert waiting == pytest.approx((0 + 3800 + 2000 + 2000) / 4)


def test_ranks_keep_their_order_and_share_their_steps() -> None:
    ranks = [trace_of(steps_of([0, 1])), trace_of(steps_of([2, 3]))]
    found = choices_of(ranks, "1")
    assert found is not None
    assert found.tokens_B.tolist() == [4]
    assert found.expert_R.tolist() == [0, 1, 2, 3]
    assert found.home_R(2).tolist() == [0, 0, 1, 1]
    assert found.home_R(4).tolist() == [0, 1, 2, 3]


def test_more_devices_than_tokens_leave_some_without() -> None:
    found = choices_of([trace_of(steps_of([3, 3]))], "1")
    assert found is not None
    assert found.home_R(1000).tolist() == [0, 500]


def test_a_layer_without_rows_has_no_choices() -> None:
    assert choices_of([trace_of([])], "1") is None
