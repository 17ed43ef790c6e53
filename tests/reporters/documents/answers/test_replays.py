"""The answers of a characterized trace and of both replays: each number beside the floor that it cannot pass."""

from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.run_metrics import RunMetrics, of_replay
from moeprof.records.run.run import Run
from moeprof.reporters.documents.answer import RunAnswer
from moeprof.reporters.documents.answers.registry import answer_of
from moeprof.reporters.documents.balance import summary
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
        "Use greedy: in decode (1 token per step), the busiest of 4 devices gets 50.0% of a step's choices, 75.0% under contiguous."
    )
    share = next(one for one in found.numbers if one.name == "busiest device's share, greedy")
    assert share.bound == ("floor without copies", 0.5)
    assert found.light.level == "good"


def test_nothing_is_asked_for_if_contiguous_placement_reaches_the_floor(tmp_path: Path) -> None:
    found = placed(tmp_path, [[0, 2]] * 12)
    assert found.sentence == (
        "Keep contiguous placement in decode (1 token per step). The busiest of 4 devices gets 50.0% of a step's choices on average, the "
        "floor without copies: no placement without copies lowers that."
    )
    assert [(one.name, one.value) for one in found.numbers] == [("busiest device's share, contiguous", 0.5)]
    assert (found.light.level, found.would_change[0]) == ("good", "Copies of hot experts, or fewer devices.")
    assert [one for one in found.would_change[1:] if "--tokens-per-step" not in one] == []


def test_one_expert_on_each_device_is_the_floor_whatever_the_steps(tmp_path: Path) -> None:
    asked = PlacementOptions(devices=[8], balancers=["greedy", "eplb"])
    draw = np.random.default_rng(0)
    steps = [draw.permutation(8)[:2].tolist() for _ in range(12)]
    found = answer(replay_placements(read_loads(log(tmp_path, steps)), asked, tmp_path / "run"))
    assert "50.0% of a step's choices on average, with one expert on each: no placement without copies lowers" in found.sentence
    assert not any("would decide" in reason for reason in found.light.reasons)
    assert not any("moved" in line or "Move" in line for line in summary(of_replay(Run.open(tmp_path / "run"))))


def test_a_gain_below_nothing_is_stated_with_its_interval(tmp_path: Path) -> None:
    found = placed(tmp_path, [[0, 2], [1, 3]] * 20 + [[0, 4]] * 36 + [[0, 1]] * 4)  # greedy puts 4 beside 0
    assert found.sentence.startswith(
        "Keep contiguous placement: in decode (1 token per step), greedy does not take 5% of its load from the busiest of 4 devices; no "
        "gain shown: -"
    )
    assert " (95% interval " in found.sentence
    assert not any("lowered" in one.name for one in found.numbers)


def test_the_headline_names_the_step_size_and_where_the_verdict_changes_for_balancers_that_copy_too(tmp_path: Path) -> None:
    """One choice, always of expert 0: a copy halves two choices of a step, but not one."""
    steps = [[0]] * 160
    for name, hint in (
        ("eplb-distinct", []),
        ("contiguous,greedy,eplb-distinct", ["Copies of hot experts, or fewer devices."]),
    ):
        asked = PlacementOptions(devices=[4], balancers=name.split(","))
        loads = read_loads(log(tmp_path, steps), tokens_per_step=[1, 2])
        found = answer(replay_placements(loads, asked, tmp_path / name))
        assert " in decode (1 token per step)" in found.sentence
        assert ("The verdict changes between 1 and 2 tokens per step." in found.sentence) == (not hint)
        changes = [one for one in found.would_change if not one.startswith("The threshold")]
        assert changes == (hint or ["Tokens per step: not recommended at 1, recommended at 2."])


def test_steps_of_one_token_are_compared_with_larger_ones_on_request_only(tmp_path: Path) -> None:
    asked = PlacementOptions(devices=[4], balancers=["greedy"])
    found = answer(replay_placements(read_loads(log(tmp_path, [[0, 1]] * 100)), asked, tmp_path / "run"))
    assert (
        "The step size: `--tokens-per-step 1,4,16,64` compares steps of one token with those of a server." in found.would_change
    )


def test_counts_of_domains_say_what_a_placement_and_a_hot_set_do_on_another_domain(tmp_path: Path) -> None:
    (tmp_path / "two.json").write_text(
        '{"top_k": 1, "layers": [0], "counts": {"a": [[30, 20, 5, 1, 1, 1, 1, 1]], "b": [[10, 10, 8, 1, 1, 8, 1, 1]]}}'
    )
    placed = answer(replay_placements(read_loads(tmp_path / "two.json"), PlacementOptions(devices=[4]), tmp_path / "placed"))
    assert placed.sentence.startswith(
        "No step was left to test a placement on the text that it was made from. Other texts: if one domain decides the placement and "
        "another is tested, the busiest of 4 devices gets "
    )
    assert f"{(50 / 60 + 20 / 40) / 2:.1%} under contiguous placement (mean over domain pairs)" in placed.sentence
    run = characterize_trace(read_recorded([tmp_path / "two.json"]), tmp_path / "run")
    found = answer_of(run, RunMetrics.of(run)).sentence
    assert found.startswith("The hottest expert of a layer gets ")
    assert "serves 50.0% (that of a for b) to 83.3% of the choices of another, 25.0% by chance" in found


def test_extra_slots_are_named_beside_a_placement_of_totals(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"top_k": 1, "layers": [0], "counts": {"a": [[30, 20, 5, 1]]}}')
    for replicas, slots in ((1, "one extra slot"), (2, "2 extra slots")):
        asked = PlacementOptions(balancers=["eplb-distinct"], devices=[2], replicas=replicas)
        found = answer(replay_placements(read_loads(tmp_path / "one.json"), asked, tmp_path / str(replicas)))
        assert (
            f" under eplb-distinct with {slots} per device, 89.3% under contiguous placement (ideal 50.0%, floor without copies "
            in (found.sentence)
        )


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
