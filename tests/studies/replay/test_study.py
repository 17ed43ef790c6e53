"""A replay leaves an ordinary run directory: counts, times and memory at their points, comparable with another replay."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moeprof.analysis.caching import replay_results
from moeprof.analysis.run_metrics import of_replay
from moeprof.policies.eviction.registry import DEFAULT
from moeprof.records.run.run import Run
from moeprof.records.traces.import_options import ImportOptions
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import POLICIES, CacheOptions, replay_caches, resolved
from tests.records.run.runs import fault, value_of
from tests.studies.replay.logs import route_log, run_of_shape

GIB = 2**30
STEPS = [[0, 1], [2, 1], [0, 3], [0, 1]]


def replayed(path: Path, out: Path, asked: CacheOptions, **source: Any) -> Run:
    """A finished replay."""
    return replay_caches(read_source(path, asked.phase, **source), asked, out)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two layers, a prefill of two tokens, four decode steps."""
    return route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)


def test_every_number_stands_at_its_point(log: Path, tmp_path: Path) -> None:
    run = replayed(log, tmp_path / "run", CacheOptions(policies=["lru"], slots=[2, 3], bandwidth=10**9))
    at = {"variant": "imported", "point": "policy=lru;slots=2"}
    # One layer by hand. Prefill loads 2, 1, 3 and keeps 1, 3; decode: 0 misses, 1 misses; 2 misses, 1 hits; 0, 3; 0 hits, 1.
    hand = {"prefill": 3, "decode": 6, "all": 9}
    for phase, count in hand.items():
        assert value_of(run, "misses", phase=phase, **at) == 2 * count
        assert value_of(run, "miss_rate", phase=phase, **at) == count / {"prefill": 3, "decode": 8, "all": 11}[phase]
        assert value_of(run, "bytes_loaded", phase=phase, **at) == count * 1000 + count * 2000
        assert value_of(run, "worst_miss_rate", phase=phase, **at) == value_of(run, "miss_rate", phase=phase, **at)
        assert value_of(run, "misses", phase=phase, layer="1", **at) == count
    assert value_of(run, "transfer_time", phase="decode", **at) == 6 * 3000 / 4
    assert value_of(run, "transfer_time", phase="all", **at) is None
    assert value_of(run, "copy_time", layer="1", variant="imported") == 2000
    assert value_of(run, "copy_time", variant="imported") == 2000
    assert value_of(run, "compulsory_misses", phase="decode", variant="imported") == 2  # expert 0 of both layers
    assert value_of(run, "expert_accesses", phase="all", variant="imported") == 22
    assert value_of(run, "memory_saved", variant="imported", point="slots=3") == 1000 + 2000
    assert value_of(run, "memory_saved", variant="imported", point="slots=3", layer="1") == 2000
    assert run.record.valid


def test_counts_are_routed_times_are_modelled_and_memory_is_exact(log: Path, tmp_path: Path) -> None:
    table = replayed(log, tmp_path / "run", CacheOptions(slots=[1, 2], overlap_ns=1)).metrics
    kinds = {metric: set(rows["kind"]) for metric, rows in table.groupby("metric")}
    assert {metric for metric, kind in kinds.items() if kind == {"modelled"}} == {"copy_time", "transfer_time", "exposed_time"}
    assert {metric for metric, kind in kinds.items() if kind == {"exact"}} == {"memory_saved"}
    assert all(len(kind) == 1 for kind in kinds.values())


def test_decode_alone_starts_cold(log: Path, tmp_path: Path) -> None:
    run = replayed(log, tmp_path / "run", CacheOptions(policies=["lru"], slots=[2], phase="decode"))
    assert set(run.metrics["phase"]) == {"decode", ""}
    # 0, 1 miss; 2 misses, 1 hits; 0, 3 miss; 0 hits, 1 misses
    assert value_of(run, "misses", phase="decode", variant="imported", point="policy=lru;slots=2") == 2 * 6
    assert value_of(run, "compulsory_misses", phase="decode", variant="imported") == 2 * 4


def test_a_budget_is_shared_by_all_layers(log: Path, tmp_path: Path) -> None:
    run = replayed(log, tmp_path / "run", CacheOptions(policies=["lru"], budgets=[12000, 3000]))
    at = {"phase": "all", "variant": "imported"}
    assert value_of(run, "misses", **at, point="policy=lru;budget_bytes=12000") == 8  # all experts of both layers fit
    assert value_of(run, "misses", **at, point="policy=lru;budget_bytes=3000") == 22
    assert value_of(run, "memory_saved", variant="imported", point="budget_bytes=3000") == 9000


def test_everything_is_replayed_where_nothing_is_asked(log: Path, tmp_path: Path) -> None:
    results = of_replay(replayed(log, tmp_path / "run", CacheOptions()))
    assert replay_results.policies(results) == list(POLICIES)
    assert replay_results.policies(results)[:2] == ["min", DEFAULT]
    assert results.record.replayed.sizes == [1, 2, 3, 4]
    assert replay_results.phases(results) == ["decode", "prefill", "all"]


def test_the_worst_layer_is_no_better_than_the_mean(tmp_path: Path) -> None:
    run = replayed(run_of_shape(tmp_path / "made", "mt-54b"), tmp_path / "run", CacheOptions(slots=[8, 32, 100]))
    results = of_replay(run)
    for policy in replay_results.policies(results):
        for size in results.record.replayed.sizes:
            found = replay_results.worst(results, "decode", policy, size)
            assert found is not None
            at = results.at(phase="decode", point=f"policy={policy};slots={size}")
            assert found[0] == at.value("worst_miss_rate")
            assert found[0] > at.value("miss_rate")


def test_the_papers_table_of_savings_stands_in_the_run(tmp_path: Path) -> None:
    # paper 5.5, statement 12: the decoder's six MoE layers of MT-54B on eight GPUs
    run = replayed(run_of_shape(tmp_path / "made", "mt-54b"), tmp_path / "run", CacheOptions(policies=["lru"], devices=8))
    for slots, saved, share, ratio in (
        (16, 0, 0, 1),
        (10, 2.2507, 0.129, 1.148),
        (5, 4.126, 0.236, 1.309),
        (1, 5.6267, 0.3217, 1.474),
    ):
        at = {"variant": "static", "point": f"slots={slots}"}
        assert value_of(run, "memory_saved", **at) == pytest.approx(saved * GIB, abs=0.001 * GIB)
        assert value_of(run, "memory_saved_share", **at) == pytest.approx(share, abs=0.0005)
        assert value_of(run, "memory_reduction", **at) == pytest.approx(ratio, abs=0.0005)
    assert value_of(run, "copy_time", variant="static") == pytest.approx(5.59e6, rel=0.001)


def test_forced_routing_makes_forced_misses(tmp_path: Path) -> None:
    source = read_source(run_of_shape(tmp_path / "made", "mt-54b"))
    forced = source.trace.model_copy(update={"forced": True})
    run = replay_caches(replace(source, trace=forced), CacheOptions(slots=[8]), tmp_path / "run")
    kinds = {metric: set(rows["kind"]) for metric, rows in run.metrics.groupby("metric")}
    assert kinds["misses"] == kinds["miss_rate"] == {"forced"}
    assert kinds["memory_saved"] == {"exact"}


def test_without_expert_sizes_only_counts_have_rows(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", STEPS, sizes=False)
    metrics = set(replayed(log, tmp_path / "run", CacheOptions(slots=[1, 2], overlap_ns=5)).metrics["metric"])
    assert metrics == {"expert_accesses", "compulsory_misses", "misses", "miss_rate", "worst_miss_rate"}


# What cannot be asked


def test_what_cannot_be_replayed_is_two_lines(log: Path, tmp_path: Path) -> None:
    trace, bare = read_source(log).trace, read_source(route_log(tmp_path / "bare.route.csv", STEPS, sizes=False)).trace
    assert "--slots 0: must be at least 1" in fault(lambda: resolved(trace, CacheOptions(slots=[4, 0]), []))
    assert "below one expert" in fault(lambda: resolved(trace, CacheOptions(budgets=[1999, 5000]), []))
    assert "expert size unknown" in fault(lambda: resolved(bare, CacheOptions(budgets=[1999]), []))
    assert "--devices 3: 4 experts cannot be divided equally" in fault(lambda: resolved(trace, CacheOptions(devices=3), []))
    assert "unknown eviction policy 'lruu'" in fault(lambda: resolved(trace, CacheOptions(policies=["lruu"]), []))


def test_more_slots_than_experts_are_all_experts_and_said_so(log: Path) -> None:
    notes: list[str] = []
    assert resolved(read_source(log).trace, CacheOptions(slots=[9, 2, 4, 5]), notes).slots == [2, 4]
    assert notes == ["9, 5 slots: replayed as 4, the experts of a layer on a device"]


def test_a_budget_above_all_experts_is_replayed_and_said_so(log: Path) -> None:
    notes: list[str] = []
    assert resolved(read_source(log).trace, CacheOptions(budgets=[50000]), notes).budgets == [50000]
    assert notes == ["48.8 KiB: all experts of a device (11.7 KiB) fit, so none is evicted"]


def test_a_stopped_replay_leaves_an_invalid_run(log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("moeprof.analysis.caching.replay_rows.missed", stop)
    with pytest.raises(KeyboardInterrupt):
        replayed(log, tmp_path / "run", CacheOptions(slots=[1]))
    assert Run.open(tmp_path / "run").record.reasons == ["interrupted"]


def test_the_number_of_experts_decides_what_a_cache_saves(tmp_path: Path) -> None:
    """8 experts of 1000 bytes, of which 6 are used: 2 slots save 6000 bytes, and not 4000."""
    log = route_log(tmp_path / "talk.route.csv", [[0, 5], [2, 1]], experts=8)
    log.write_text(log.read_text().replace("# n_expert=8\n", ""))
    at = {"variant": "imported", "point": "slots=2"}
    guessed = replayed(log, tmp_path / "guessed", CacheOptions(slots=[2], policies=["lru"]))
    assert value_of(guessed, "memory_saved", **at) == 4000
    stated = replayed(log, tmp_path / "stated", CacheOptions(slots=[2], policies=["lru"]), options=ImportOptions(experts=8))
    assert value_of(stated, "memory_saved", **at) == 6000
    assert any("taken as 6" in note for note in guessed.record.notes)
    assert not any("taken as" in note for note in stated.record.notes)


def test_a_replay_of_an_invalid_run_is_invalid_for_the_runs_reasons(tmp_path: Path) -> None:
    path = run_of_shape(tmp_path / "run", "mt-54b", steps=4)
    document = json.loads((path / "run.json").read_text()) | {"valid": False, "reasons": ["interrupted", "outputs differ"]}
    (path / "run.json").write_text(json.dumps(document))
    expected = ["the replayed run is invalid: interrupted", "the replayed run is invalid: outputs differ"]
    part = path / "routing" / "decode-static-rank0.parquet"
    runs = [replayed(trace, tmp_path / f"of-{trace.stem}", CacheOptions(slots=[2], policies=["lru"])) for trace in (path, part)]
    runs.append(replay_placements(read_loads(path), PlacementOptions(["contiguous"], [2]), tmp_path / "placed"))
    for run in runs:
        assert not run.record.valid
        assert run.record.reasons == expected


def test_dropped_choices_of_a_log_are_no_accesses(tmp_path: Path) -> None:
    log = tmp_path / "talk.route.csv"
    rows = ["1,0,0,0,0,0", "1,0,0,1,1,1", "1,1,0,0,1,0", "1,1,0,1,0,1", "1,2,0,0,1,0", "1,2,0,1,2,1"]
    log.write_text("# n_expert=4\nphase,step,layer,slot,expert,dropped\n" + "".join(f"{row}\n" for row in rows))
    run = replayed(log, tmp_path / "run", CacheOptions(slots=[1], policies=["lru"]))
    # read: 0, 1, 1: two misses and a hit
    assert value_of(run, "expert_accesses", phase="all", variant="imported") == 3
    assert value_of(run, "misses", phase="all", variant="imported", point="policy=lru;slots=1") == 2


def test_the_chats_of_a_log_follow_one_another_and_each_has_its_own_prefill(tmp_path: Path) -> None:
    log, chats = tmp_path / "talk.route.csv", [[(0, 0, 1), (0, 1, 2), (1, 0, 3)], [(0, 0, 1), (0, 2, 3), (1, 0, 1)]]
    rows = [
        f"{turn},{phase},{step},0,{slot},{expert}\n"
        for turn, chat in enumerate(chats)
        for step, (phase, *experts) in enumerate(chat)
        for slot, expert in enumerate(experts)
    ]
    log.write_text("# n_expert=4\nturn,phase,step,layer,slot,expert\n" + "".join(rows))
    # batches: 0 1 2 | 0 3 | 0 1 2 3 | 0 1
    for phase, accesses in (("all", 11), ("prefill", 7), ("decode", 4)):
        run = replayed(log, tmp_path / phase, CacheOptions(slots=[2], policies=["lru"], phase=phase))
        assert value_of(run, "expert_accesses", phase=phase, variant="imported") == accesses
    inputs = read_loads(log).inputs
    assert [matrices[0].num_steps for matrices in inputs.layers["prefill"]] == [2]
