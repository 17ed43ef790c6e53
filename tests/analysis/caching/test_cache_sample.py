"""The sample of a replayed cache is what the replay counted, and bounded."""

from pathlib import Path

import pytest

from moeprof.analysis.caching import cache_sample
from moeprof.analysis.caching.advice import advise
from moeprof.analysis.run_metrics import of_replay
from moeprof.records.run.raw_tables import CACHE_SAMPLE
from moeprof.records.run.run import Run
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.studies.replay.logs import route_log

STEPS = [[0, 1, 2], [1, 2, 3], [4, 5, 6], [0, 1, 2], [7, 1, 2]] * 10


def replayed(folder: Path, **options: object) -> Run:
    """Fifty decode steps of two layers with eight experts, from empty caches."""
    folder.mkdir(exist_ok=True)
    source = read_source(route_log(folder / "talk.route.csv", STEPS, layers=2, experts=8), phase="decode")
    return replay_caches(source, CacheOptions(phase="decode", **options), folder / "run")  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"access": "batch"}, {"devices": 2}, {"slots": [3], "policies": ["lru", "fifo"]}])
def test_the_sample_has_the_misses_of_the_replay(tmp_path: Path, options: dict[str, object]) -> None:
    run = replayed(tmp_path, **options)
    advice, sample = advise(of_replay(run), "decode"), run.raw(CACHE_SAMPLE).to_pandas()
    assert advice
    assert sample[["policy", "slots"]].drop_duplicates().to_numpy().tolist() == [[advice.policy, advice.size]]
    assert 1 - sample["hit"].mean() == pytest.approx(advice.miss_rate)
    assert not (sample["hit"] & (sample["victim"] >= 0)).any()


def test_an_expert_hits_if_it_was_used_before_and_not_evicted_since(tmp_path: Path) -> None:
    run = replayed(tmp_path, slots=[4])
    for _, own in run.raw(CACHE_SAMPLE).to_pandas().groupby("layer"):
        resident: set[int] = set()
        for expert, victim, hit in zip(own["expert"], own["victim"], own["hit"], strict=True):
            assert hit == (expert in resident)
            resident = (resident | {expert}) - {victim}
            assert len(resident) <= 4


def test_the_sample_of_a_long_trace_ends_early_and_a_budget_of_all_layers_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(replayed(tmp_path / "budget", budgets=[8000]).raw(CACHE_SAMPLE)) == 0
    monkeypatch.setattr(cache_sample, "MOST_BATCHES", 7)
    assert len(replayed(tmp_path / "few").raw(CACHE_SAMPLE)) == 2 * 7 * 3
    monkeypatch.setattr(cache_sample, "MOST_USES", 2 * 10)
    assert len(replayed(tmp_path / "fewer").raw(CACHE_SAMPLE)) == 2 * 3 * 3
