"""Rows of a replay: every size over all layers, landmarks by layer, and sums that agree with each other."""

from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from moeprof.analysis.caching.accesses import stream_of
from moeprof.analysis.caching.replay_rows import MANY, CacheInputs, landmarks, replay_rows
from moeprof.records.metrics.registry import MetricRow, MetricTable
from moeprof.records.run.replay import ReplayRequest, TraceSource
from moeprof.records.run.run import RunRecord
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import CacheOptions, resolved
from tests.analysis.traces import Row, drawn_rows, trace_of
from tests.studies.replay.logs import route_log

LAYERS = ["1", "3"]


def test_a_few_sizes_are_all_landmarks() -> None:
    assert landmarks(range(1, MANY + 1), []) == list(range(1, MANY + 1))


def test_many_sizes_have_landmarks_in_half_octaves_with_both_ends_and_the_knee() -> None:
    assert landmarks(range(1, 101), [37]) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 37, 48, 64, 96, 100]
    assert landmarks(range(50, 90), []) == [50, 64, 89]


def rows_of(rows: list[Row], policies: list[str], **asked: object) -> list[MetricRow]:
    """The rows for a decode trace of two layers with five experts of 10 and 20 bytes."""
    sizes = {layer: 10 * (index + 1) for index, layer in enumerate(LAYERS)}
    trace = TraceSource(
        name="drawn", path="", workload="lm", num_experts=5, top_k=3, layers=LAYERS, decisions={}, expert_bytes=sizes
    )
    settled = {"slots": [1, 2, 4, 5], "access": "sequential", "phase": "decode", "bandwidth": 10**9} | asked
    replay = ReplayRequest.model_validate({"trace": trace, "policies": policies} | settled)
    stream = stream_of({"decode": [trace_of(rows, num_experts=5, layers=tuple(LAYERS))]}, LAYERS, as_logged=False)
    return list(replay_rows(RunRecord(command="replay", replay=replay), CacheInputs("static", stream)))


@settings(deadline=None)
@given(drawn_rows(), st.sampled_from(["sequential", "batch"]))
def test_parts_add_up_and_no_layer_is_worse_than_the_worst(rows: list[Row], access: str) -> None:
    assume(rows)
    found = rows_of(rows, ["min", "lru"], access=access)
    table = MetricTable()
    table.extend(found)  # an error if two rows have one address
    several = len({row.domain for row in rows}) > 1
    for whole in [row for row in found if row.metric == "misses" and not row.layer and not row.domain]:
        parts = [row for row in found if row.metric == "misses" and row.point == whole.point and row.layer]
        assert sum(row.value for row in parts if not row.domain) == whole.value
        assert sum(row.value for row in parts if row.domain) == (whole.value if several else 0)
        rates = [row.value for row in found if row.metric == "miss_rate" and row.point == whole.point and row.layer]
        named = {row.metric: row.value for row in found if row.point == whole.point and not row.layer and not row.domain}
        assert named["worst_miss_rate"] == max(rates)
        assert named["worst_miss_rate"] >= named["miss_rate"]
        loaded = {layer: sum(row.value for row in parts if row.layer == layer and not row.domain) for layer in LAYERS}
        assert named["bytes_loaded"] == 10 * loaded["1"] + 20 * loaded["3"]
        assert named["miss_rate"] <= 1


@settings(deadline=None)
@given(drawn_rows())
def test_with_a_slot_for_every_expert_only_first_uses_miss(rows: list[Row]) -> None:
    assume(rows)
    found = rows_of(rows, ["min", "lru", "inactive-first+lifo"])
    first = [row.value for row in found if row.metric == "compulsory_misses" and not row.layer and not row.domain]
    full = {
        row.value for row in found if row.metric == "misses" and row.point.endswith("slots=5") and not row.layer + row.domain
    }
    assert full == set(first) == {len({(row.layer, row.expert) for row in rows})}


def test_layers_of_a_long_sweep_have_rows_at_landmarks_only(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [[step % 40] for step in range(120)], experts=64)
    source = read_source(log)
    replay = resolved(source.trace, CacheOptions(policies=["lru"]), [])
    found = list(replay_rows(RunRecord(command="replay", replay=replay), source.selection.cache_inputs))
    rates = [row for row in found if row.metric == "miss_rate" and row.phase == "decode"]
    assert len([row for row in rates if not row.layer]) == 64
    assert len([row for row in rates if row.layer]) == len(landmarks(range(1, 65), [40]))
    # LRU misses a scan of 40 experts everywhere until all 40 fit: no size in between bends the curve but that one
    knees = {row.point: row.value for row in found if row.metric == "knee_slots"}
    assert knees == pytest.approx({"policy=lru": 40, "": 40})
