"""A replay is believed about a run only where it does what the run did, use by use; the run here is an independent cache."""

from collections.abc import Sequence

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.caching.reproduction import Buffered, DifferenceError, buffered_of, reproduced
from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import make_eviction
from moeprof.records.placement import Placement
from moeprof.records.traces.expert_loads import COLUMNS, ExpertLoads, joined
from moeprof.records.traces.routing_trace import COLUMNS as TRACE_COLUMNS
from moeprof.records.traces.routing_trace import RoutingTrace, TraceHeader

LIFO = "inactive-first+lifo"
LAYERS = ["1", "3"]
Steps = Sequence[Sequence[Sequence[int]]]
"""Experts of every token, by step."""


def contiguous(num_ranks: int) -> Placement:
    return Placement.contiguous(LAYERS, 8, num_ranks)


def trace(steps: Steps, rank: int = 0) -> RoutingTrace:
    """Two layers that decide alike."""
    rows = [
        {"step": step, "sequence": token, "position": step, "token_id": 0, "layer": layer, "slot": slot, "expert": expert}
        | {"weight": 0.5, "domain": "code", "dropped": False, "residency": None}
        for step, tokens in enumerate(steps)
        for layer in LAYERS
        for token, experts in enumerate(tokens)
        for slot, expert in enumerate(experts)
    ]
    header = TraceHeader(
        workload="lm", phase="decode", variant="dynamic+buffered", rank=rank, num_experts=8, top_k=2, layers=LAYERS
    )
    return RoutingTrace(header, pa.Table.from_pylist(rows, schema=TRACE_COLUMNS))


def played(ranks: Sequence[Steps], slots: int, policy: str) -> ExpertLoads:
    """What buffered layers would have logged: each rank's experts of all ranks' tokens, step by step."""
    share, rows = 8 // len(ranks), []
    for rank in range(len(ranks)):
        caches = {layer: Cache(slots, make_eviction(policy)) for layer in LAYERS}
        for step in range(len(ranks[0])):
            chosen = {expert for steps in ranks for experts in steps[step] for expert in experts}
            active = sorted(expert for expert in chosen if expert // share == rank)
            for layer in LAYERS:
                rows += [
                    {"variant": "dynamic+buffered", "point": "", "phase": "decode", "domain": "code", "step": step}
                    | {"layer": layer, "rank": rank, "expert": one.expert, "hit": one.hit, "victim": one.victim}
                    | {"bytes": 0 if one.hit else 1, "start_ns": 0, "end_ns": 0}
                    for one in caches[layer].batch(active)
                ]
    return joined([pa.Table.from_pylist(rows, schema=COLUMNS)])


pairs = st.lists(st.integers(0, 7), min_size=2, max_size=2, unique=True)
all_steps = st.lists(st.lists(pairs, min_size=1, max_size=4), min_size=1, max_size=6)


@settings(deadline=None)
@given(st.lists(all_steps, min_size=1, max_size=2), st.integers(1, 4), st.sampled_from([LIFO, "lru", "lfu", "mru"]))
def test_what_a_cache_did_is_reproduced_use_by_use(ranks: list[Steps], slots: int, policy: str) -> None:
    length = min(map(len, ranks))
    ranks = [steps[:length] for steps in ranks]
    loads = played(ranks, slots, policy)
    traces = [trace(steps, rank) for rank, steps in enumerate(ranks)]
    assert reproduced(loads, traces, Buffered("dynamic+buffered", slots, policy), contiguous(len(ranks))) == len(loads)


STEPS: Steps = [[[0, 1], [2, 3]], [[4, 5]], [[0, 1]], [[2, 3]]]


@pytest.mark.parametrize(("slots", "policy"), [(3, LIFO), (4, "lru")])
def test_another_number_of_slots_or_another_policy_is_found_out(slots: int, policy: str) -> None:
    loads = played([STEPS], 4, LIFO)
    with pytest.raises(
        DifferenceError, match=r"layer 1: step \d, expert \d: a (hit|miss) in the run, the opposite in the replay"
    ):
        reproduced(loads, [trace(STEPS)], Buffered("dynamic+buffered", slots, policy), contiguous(1))


def test_so_is_another_placement() -> None:
    loads, buffered = played([STEPS, STEPS], 2, LIFO), Buffered("dynamic+buffered", 2, LIFO)
    ranks = ((0, 1, 2, 7), (3, 4, 5, 6))
    with pytest.raises(DifferenceError, match="layer 1, rank 0: the run used experts that differ from its trace"):
        reproduced(loads, [trace(STEPS), trace(STEPS, 1)], buffered, Placement(8, dict.fromkeys(LAYERS, ranks)))


def test_so_is_another_trace() -> None:
    loads, buffered = played([STEPS], 4, LIFO), Buffered("dynamic+buffered", 4, LIFO)
    with pytest.raises(DifferenceError, match="layer 1: the run used experts that differ from its trace"):
        reproduced(loads, [trace(STEPS[:2])], buffered, contiguous(1))
    with pytest.raises(DifferenceError, match="layer 1: the steps in which the run used experts differ"):
        reproduced(played([[[[0, 1]], [[2, 3]]]], 4, LIFO), [trace([[[0, 1], [2, 3]]])], buffered, contiguous(1))


def test_only_a_variant_with_slots_is_buffered() -> None:
    assert buffered_of({"label": "static", "store": "resident", "slots": 0, "eviction": ""}) is None
    assert buffered_of({"label": "dynamic+buffered", "store": "buffered", "slots": 3, "eviction": "lru"}) == Buffered(
        "dynamic+buffered", 3, "lru"
    )
