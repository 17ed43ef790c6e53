"""A verdict on placements for steps of another size than those of the trace."""

from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.placement import balance_results
from moeprof.analysis.run_metrics import of_replay
from moeprof.records.run.run import Run
from moeprof.reporters.documents.balance import body, summary
from moeprof.reporters.documents.document import Heading
from moeprof.studies.recompute import recompute
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from tests.analysis.traces import Row, trace_of
from tests.records.run.runs import fault, value_of

TOKENS, EXPERTS = 650, 8
CHOSEN = np.random.default_rng(0).choice(
    EXPERTS, TOKENS, p=np.arange(1, EXPERTS + 1) ** -1.2 / (np.arange(1, EXPERTS + 1) ** -1.2).sum()
)
"""One choice of every token of a chat; experts 0 and 1, which contiguous placement has on one device, are the hottest."""

OPTIONS = PlacementOptions(balancers=["greedy"], devices=[4])


@pytest.fixture
def chat(tmp_path: Path) -> Path:
    """A chat that decodes a token per step."""
    rows = [Row(step, int(expert), position=step) for step, expert in enumerate(CHOSEN)]
    trace_of(rows, num_experts=EXPERTS).write(tmp_path / "chat.parquet")
    return tmp_path / "chat.parquet"


def replayed(chat: Path, folder: Path, tokens: list[int]) -> Run:
    return replay_placements(read_loads(chat, tokens_per_step=tokens), OPTIONS, folder)


def busiest(tokens: int, home_E: list[int]) -> float:
    """The mean share of the busiest device in the later half of the steps, step by step."""
    steps = [CHOSEN[first : first + tokens] for first in range(0, TOKENS - tokens + 1, tokens)]
    later = steps[len(steps) // 2 :]
    return float(np.mean([max(np.bincount([home_E[expert] for expert in step])) / tokens for step in later]))


def test_the_rows_are_of_so_many_tokens_and_the_points_tell_the_sizes_apart(chat: Path, tmp_path: Path) -> None:
    run = replayed(chat, tmp_path / "run", [16, 1])
    at = {"phase": "decode", "variant": "static"}
    contiguous = {tokens: busiest(tokens, [expert // 2 for expert in range(EXPERTS)]) for tokens in (1, 16)}
    assert value_of(run, "avg_max_load", point="balancer=contiguous;devices=4", **at) == pytest.approx(contiguous[16])
    assert value_of(run, "test_step_tokens", **at) == 16
    assert (value_of(run, "history_steps", **at), value_of(run, "test_steps", **at)) == (20, 20)
    for tokens, steps in ((1, 325), (16, 20)):
        point = f"balancer=contiguous;devices=4;tokens={tokens}"
        assert value_of(run, "avg_max_load", point=point, **at) == pytest.approx(contiguous[tokens])
        assert value_of(run, "test_steps", point=f"tokens={tokens}", **at) == steps
    assert contiguous[1] == 1, "one choice occupies one device"


def test_the_verdict_names_the_step_size_and_where_it_changes(chat: Path, tmp_path: Path) -> None:
    results = of_replay(replayed(chat, tmp_path / "run", [1, 16, 4]))
    gains = {tokens: gain for tokens, _, gain in balance_results.step_sizes(results, "decode", copies=False)}
    assert list(gains) == [1, 4, 16]
    assert (gains[1].value, gains[1].verdict) == (0, "not recommended")
    assert gains[16].verdict == "recommended"
    lines = summary(results)
    assert lines[0].startswith("Placement (decode, 4 devices, 1 token per step): contiguous. ")
    (line,) = (line for line in lines if line.startswith("Step size (decode, without copies): "))
    assert "at 1 token per step, greedy gains 0.0% (not recommended); at 4, greedy " in line
    assert line.endswith("The verdict changes between 1 and 4 tokens per step.")
    assert next(iter(body(results))) == Heading("Phase decode, 1 token per step, consecutive")


def test_without_the_option_the_steps_are_those_of_the_trace(chat: Path, tmp_path: Path) -> None:
    run = replay_placements(read_loads(chat), OPTIONS, tmp_path / "run")
    assert not any("tokens=" in point for point in run.metrics["point"])
    assert not any("Step size" in line for line in summary(of_replay(run)))
    assert value_of(run, "test_step_tokens", phase="decode", variant="static") == 1


def test_the_rows_can_be_derived_again(chat: Path, tmp_path: Path) -> None:
    before = replayed(chat, tmp_path / "run", [16, 4]).metrics
    recompute(Run.open(tmp_path / "run"))
    assert Run.open(tmp_path / "run").metrics.equals(before)


def test_steps_that_the_tokens_do_not_fill_twice_are_said_or_refused(chat: Path, tmp_path: Path) -> None:
    run = replayed(chat, tmp_path / "run", [16, 400])
    assert "decode: fewer than two steps of 400 tokens, so there is no placement" in run.record.notes
    assert fault(lambda: read_loads(chat, tokens_per_step=[700])) == (
        f"--tokens-per-step 700: no domain of {chat} has 700 tokens in one phase"
    )


def test_counts_have_no_tokens(tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text('{"top_k": 1, "layers": [0], "counts": {"a": [[1, 2]], "b": [[2, 1]]}}')
    assert (
        fault(lambda: read_loads(counts, tokens_per_step=[4, 8]))
        == f"--tokens-per-step 4,8: {counts} holds counts, and no tokens"
    )


def test_a_real_chat_is_balanced_by_copies_only_if_steps_have_several_tokens(shared_data: Path, tmp_path: Path) -> None:
    loads = read_loads(shared_data / "traces/gemma.route.csv", "decode", tokens_per_step=[1, 4, 16, 64])
    run = replay_placements(loads, PlacementOptions(balancers=["eplb-distinct"], devices=[8]), tmp_path / "run")
    found = balance_results.step_sizes(of_replay(run), "decode", copies=True)
    assert [gain.value for _, _, gain in found] == pytest.approx([0.0, 0.16, 0.22, 0.30], abs=0.01), (
        "as in a trial by other means"
    )
    assert [gain.verdict for _, _, gain in found[:2]] == ["not recommended", "recommended"]
