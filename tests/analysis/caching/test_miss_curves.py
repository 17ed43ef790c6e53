"""A replay's counts and times against published figures, and against sums by hand."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.caching.accesses import AccessStream, stream_of
from moeprof.analysis.caching.miss_counts import hits
from moeprof.analysis.caching.miss_curves import exposed, first_uses, missed
from moeprof.policies.eviction.registry import needs_future
from moeprof.records.run.replay import ReplayRequest
from moeprof.studies.replay.source import ReplaySource, read_source
from moeprof.studies.replay.study import CacheOptions, resolved
from tests.analysis.caching.references import POLICIES
from tests.studies.replay.logs import route_log

PUBLISHED = {"belady": "min", "lru": "lru", "lfu": "lfu"}
MIB = 2**20


def streamed(source: ReplaySource, asked: CacheOptions) -> tuple[AccessStream, ReplayRequest]:
    """What the functions under test take."""
    replay = resolved(source.trace, asked, [])
    return stream_of(source.selection.traces, source.trace.layers, as_logged=source.selection.file.as_logged), replay


@pytest.fixture
def gemma(shared_data: Path) -> Callable[[CacheOptions], tuple[AccessStream, ReplayRequest]]:
    """The real trace, ready for what is asked."""
    return lambda asked: streamed(read_source(shared_data / "traces" / "gemma.route.csv", asked.phase), asked)


def test_budgets_agree_with_the_published_curve(
    gemma: Callable[[CacheOptions], tuple[AccessStream, ReplayRequest]], shared_data: Path
) -> None:
    with (shared_data / "traces" / "gemma-curve.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["policy"] in PUBLISHED]
    budgets = sorted({int(row["budget_mib"]) for row in rows})
    stream, replay = gemma(CacheOptions(budgets=[size * MIB for size in budgets], access="batch"))
    counted_LP = stream.counted().sum(axis=2)
    sizes_L = np.array([replay.trace.expert_bytes[layer] for layer in stream.layers])
    assert len(rows) == 33
    for row in rows:
        missed_SLP = missed(stream, replay, PUBLISHED[row["policy"]]).sum(axis=(1, 4))
        missed_LP = missed_SLP[budgets.index(int(row["budget_mib"]))]
        assert round(100 - 100 * missed_LP.sum() / counted_LP.sum(), 3) == float(row["hit_pct_cum"])
        assert round(100 - 100 * missed_LP[:, 1].sum() / counted_LP[:, 1].sum(), 3) == float(row["hit_pct_decode"])
        assert round(float(missed_LP.sum(axis=1) @ sizes_L) / MIB, 1) == float(row["read_mib"])


def test_slots_per_layer_agree_with_an_independent_simulator(
    gemma: Callable[[CacheOptions], tuple[AccessStream, ReplayRequest]], shared_data: Path
) -> None:
    known = json.loads((shared_data / "reference" / "perlayer_decode_misses.json").read_text())["traces"]["gemma"]
    stream, replay = gemma(CacheOptions(slots=[8, 16, 32, 64], phase="decode"))
    assert len(stream) == known["accesses"]
    for name, policy in POLICIES.items():
        counts = missed(stream, replay, policy).sum(axis=(1, 2, 3, 4))
        assert {str(size): int(count) for size, count in zip(replay.slots, counts, strict=True)} == {
            size: by_policy[name] for size, by_policy in known["misses"].items()
        }


def test_the_device_itself_hit_as_often_as_the_replay_says(
    gemma: Callable[[CacheOptions], tuple[AccessStream, ReplayRequest]], shared_data: Path
) -> None:
    lines = (shared_data / "traces" / "gemma.metrics").read_text().splitlines()
    measured = float(lines[-2].split(",")[6])
    stream, replay = gemma(CacheOptions(budgets=[4000 * MIB], access="batch"))
    misses = missed(stream, replay, "lru").sum()
    assert 100 - 100 * misses / len(stream) == pytest.approx(measured, abs=0.1)


def test_a_scan_misses_as_the_paper_computes(tmp_path: Path) -> None:
    # paper 5.2: experts 1, 2, 3 in every step, two slots; after the first step FIFO = LRU = 1, LIFO = 2/3, MIN = 1/2
    log = route_log(tmp_path / "scan.route.csv", [[1, 2, 3]] * 201)
    stream, replay = streamed(read_source(log), CacheOptions(slots=[2]))
    rates = {policy: (int(missed(stream, replay, policy).sum()) - 3) / 600 for policy in ("fifo", "lru", "lifo", "mru", "min")}
    assert rates == pytest.approx({"fifo": 1, "lru": 1, "lifo": 2 / 3, "mru": 0.5, "min": 0.5}, abs=0.002)


def test_the_longer_scan_misses_as_the_paper_computes(tmp_path: Path) -> None:
    log = route_log(tmp_path / "scan.route.csv", [list(range(16))] * 201, experts=16)
    stream, replay = streamed(read_source(log), CacheOptions(slots=[1, 5, 10, 15]))
    for policy, rates in {"lifo": [1, 0.75, 0.4375, 0.125], "min": [1, 0.7333, 0.4, 0.0667], "lru": [1] * 4}.items():
        steady = (missed(stream, replay, policy).sum(axis=(1, 2, 3, 4)) - 16) / 3200
        assert steady.tolist() == pytest.approx(rates, abs=0.003)  # Belady leaves the last step's bargains to chance


def test_all_slots_leave_first_uses_only(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [[0, 1], [2, 1], [0, 2]], prefill=[[1, 3]], layers=2)
    stream, replay = streamed(read_source(log), CacheOptions(slots=[4]))
    first_LP = first_uses(stream).sum(axis=2)
    assert first_LP.tolist() == [[2, 2], [2, 2]]  # experts 1 and 3 in prefill, 0 and 2 in decode, in both layers
    for policy in ("min", "lru", "lfu", "inactive-first+lifo"):
        assert (missed(stream, replay, policy)[0].sum(axis=0) == first_uses(stream)).all()


def test_each_device_caches_its_own_experts(tmp_path: Path) -> None:
    steps = [[0, 2], [1, 3], [0, 2], [1, 2], [0, 3]]
    whole = route_log(tmp_path / "all.route.csv", steps)
    halves = [
        route_log(tmp_path / f"{low}.route.csv", [[expert for expert in step if low <= expert < low + 2] for step in steps])
        for low in (0, 2)
    ]
    stream, replay = streamed(read_source(whole), CacheOptions(slots=[1, 2], devices=2))
    alone = [missed(*streamed(read_source(half), CacheOptions(slots=[1, 2])), "lru").sum(axis=(1, 2, 3, 4)) for half in halves]
    assert missed(stream, replay, "lru").sum(axis=(2, 3, 4)).T.tolist() == [one.tolist() for one in alone]


def test_copies_that_fit_the_overlap_of_their_layer_cost_nothing(tmp_path: Path) -> None:
    # every step of layer 0 loads two experts of 1000 bytes, of layer 1 two of 2000: at 1 GB/s 2 us and 4 us
    log = route_log(tmp_path / "talk.route.csv", [[0, 1], [2, 3]] * 4, layers=2)
    source = read_source(log)
    for overlap_ns, expected in ((0, 6000), (1500, 500 + 2500), (2000, 2000), (5000, 0)):
        stream, replay = streamed(source, CacheOptions(slots=[2], bandwidth=10**9, overlap_ns=overlap_ns))
        assert exposed(stream, replay, "lru", 2).tolist() == [pytest.approx(expected)]


def test_exposed_time_is_that_of_the_slowest_device(tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [[0, 2], [1, 2]] * 4)  # device 0 loads every step, device 1 once
    stream, replay = streamed(read_source(log), CacheOptions(slots=[1], devices=2, bandwidth=10**9))
    assert exposed(stream, replay, "lru", 1).tolist() == [pytest.approx(1000)]


def test_hits_and_counts_are_the_same_replay(gemma: Callable[[CacheOptions], tuple[AccessStream, ReplayRequest]]) -> None:
    stream, replay = gemma(CacheOptions(slots=[24], phase="decode"))
    for policy in ("inactive-first+lifo", "batch-aware"):
        assert not needs_future(policy)
        counts_L = missed(stream, replay, policy).sum(axis=(0, 1, 3, 4))
        for layer in (0, 17):
            found = hits(stream.accesses(stream.layer_N == layer), policy, 24, replay.access)
            assert (~found).sum() == counts_L[layer]
