"""The answers of a characterized trace and of both replays: each number beside the floor that it cannot pass."""

from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.run_metrics import RunMetrics, of_replay
from moeprof.records.run.run import Run
from moeprof.reporters.documents.answer import RunAnswer
from moeprof.reporters.documents.answers.registry import answer_of
from moeprof.studies.characterize_trace import characterize_trace, read_recorded
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from moeprof.studies.replay.source import read_source
from moeprof.studies.replay.study import CacheOptions, replay_caches
from tests.studies.replay.logs import route_log

SCAN = [[0, 1, 2], [1, 2, 3], [4, 5, 6], [0, 1, 2], [7, 1, 2]] * 20


def log(folder: Path, steps: list[list[int]] = SCAN) -> Path:
    return route_log(folder / "talk.route.csv", steps, prefill=steps[:1], layers=2, experts=8)


def answer(run: Run) -> RunAnswer:
    return answer_of(run, of_replay(run))


def test_misses_stand_beside_those_of_min(tmp_path: Path) -> None:
    run = replay_caches(read_source(log(tmp_path)), CacheOptions(), tmp_path / "run")
    found, results = answer(run), of_replay(run)
    missed = found.numbers[0]
    assert found.sentence.startswith("Use lfu with 3 of 8 slots per layer: ")
    assert missed.bound == ("MIN (Belady)", results.value("miss_rate", phase="decode", point="policy=min;slots=3"))
    assert missed.bound[1] <= missed.value
    assert [one.name for one in found.numbers[1:3]] == ["miss rate with 1 slot", "miss rate with 6 slots"]
    assert found.numbers[3].value == pytest.approx(2 * (8 - 3) / 600)  # the prompt has used three of eight in both layers


def test_a_single_size_has_no_knee_which_makes_it_doubtful(tmp_path: Path) -> None:
    found = answer(replay_caches(read_source(log(tmp_path)), CacheOptions(slots=[2]), tmp_path / "run"))
    assert found.light.reasons == ["No knee was found in the miss-rate curve: the size is the largest that was replayed."]


def test_only_the_future_gives_no_recommendation(tmp_path: Path) -> None:
    found = answer(replay_caches(read_source(log(tmp_path)), CacheOptions(policies=["min"]), tmp_path / "run"))
    assert found.sentence == "No recommendation: every replayed policy needs future accesses."


def placed(folder: Path, steps: list[list[int]]) -> RunAnswer:
    asked = PlacementOptions(devices=[4], balancers=["contiguous", "greedy"])
    return answer(replay_placements(read_loads(log(folder, steps)), asked, folder / "run"))


def test_a_placement_that_helps_is_recommended_beside_its_floor(tmp_path: Path) -> None:
    found = placed(tmp_path, [[0, 1]] * 100)  # one device has both in layer 0; in layer 1, experts 1 and 2 are on two
    assert found.sentence == (
        "Use greedy: in decode, the busiest of 4 devices gets 50.0% of a step's choices, 75.0% under contiguous."
    )
    share = next(one for one in found.numbers if one.name == "busiest device's share, greedy")
    assert share.bound == ("floor without copies", 0.5)
    assert found.light.level == "good"


def test_a_gain_of_nothing_is_no_number(tmp_path: Path) -> None:
    found = placed(tmp_path, [[0, 2]] * 100)
    assert (
        found.sentence
        == "Keep contiguous placement: in decode, no balancer takes 5% of its load from the busiest of 4 devices."
    )
    assert not any("lowered" in one.name for one in found.numbers)


def test_a_hot_set_stands_beside_its_share_by_chance(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    steps = [[int(one)] for one in draw.integers(0, 2, 400)]
    run = characterize_trace(read_recorded([log(tmp_path, steps)]), tmp_path / "run")
    found = answer_of(run, RunMetrics.of(run))
    assert found.sentence == (
        "A hot set exists in decode: the 2 experts per layer chosen most in the first half serve 100.0% of later choices, "
        "25.0% by chance."
    )
    assert found.numbers[0].bound == ("by chance", 0.25)
    assert found.light.reasons == ["The trace has one sequence: another text may have other hot experts."]
