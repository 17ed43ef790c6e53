"""Placements that are made again along a trace: their rows, their verdict, and what moves cost."""

from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.run_metrics import of_replay
from moeprof.policies.balancing.registry import replicating
from moeprof.records.run.run import Run
from moeprof.reporters.documents.balance import summary
from moeprof.reporters.sections.rebalancing import rebalancing_blocks
from moeprof.studies.recompute import recompute
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from tests.analysis.traces import Row, trace_of
from tests.records.run.runs import fault, value_of
from tests.studies.replay.logs import route_log

SIZE = 1000
"""Bytes of an expert."""

STEPS, EXPERTS = 144, 8
HOT = [[0, 1, 2, 3], [0, 1, 4, 5], [2, 3, 6, 7], [0, 2, 4, 6], [1, 3, 5, 7]]
"""No pairs of experts keep the hot ones apart all the time."""

AT = {"phase": "decode", "variant": "static"}


def moving(path: Path, *, moves: bool = True) -> Path:
    """Steps of 32 tokens, most of them at four hot experts; every 12 steps they are four others, if they `move`."""
    generator = np.random.default_rng(0)
    rows = []
    for step in range(STEPS):
        weights = np.full(EXPERTS, 1.0)
        weights[HOT[step // 12 % len(HOT) if moves else 0]] = 12
        chosen = generator.choice(EXPERTS, 32, p=weights / weights.sum())
        rows += [
            Row(step, int(expert), layer=layer, sequence=token) for layer in ("1", "3") for token, expert in enumerate(chosen)
        ]
    trace_of(rows, num_experts=EXPERTS, layers=("1", "3")).write(path)
    return path


def replayed(trace: Path, folder: Path, **asked: object) -> Run:
    options = {"balancers": ["greedy"], "devices": [4], "every": [3], "window": 6, "bandwidth": 10**6} | asked
    return replay_placements(read_loads(trace, expert_bytes=SIZE), PlacementOptions(**options), folder)  # type: ignore[arg-type]


def number(run: Run, metric: str, balancer: str, schedule: str) -> float:
    every = "" if schedule in ("fixed", "once") else ";every=3"
    point = f"balancer={balancer};devices=4;schedule={schedule}{every}"
    (found,) = (row.value for row in run.rows if (row.key.metric, row.key.point) == (metric, point))
    return found


def reference(run: Run) -> float:
    """The load of the best placement that is made once, which greedy makes here."""
    assert {row.key.category for row in run.rows if row.key.metric == "repeat_gain"} == {"greedy"}
    return number(run, "rebalanced_load", "greedy", "once")


def test_loads_that_move_are_followed_and_incremental_placement_needs_fewer_moves(tmp_path: Path) -> None:
    run = replayed(moving(tmp_path / "t.parquet"), tmp_path / "run")
    once, full, few = (number(run, "rebalanced_load", "greedy", schedule) for schedule in ("once", "full", "incremental"))
    assert full < 0.93 * once
    assert few < 0.93 * once
    assert number(run, "rebalance_moved_experts", "greedy", "incremental") < 0.7 * number(
        run, "rebalance_moved_experts", "greedy", "full"
    )
    assert value_of(run, "rebalance_steps", **AT) == 138
    assert number(run, "rebalances", "greedy", "full") == 45
    assert number(run, "rebalanced_imbalance", "greedy", "full") == pytest.approx(4 * full)
    assert number(run, "repeat_gain_low", "greedy", "full") > 0
    contiguous = number(run, "rebalanced_load", "contiguous", "fixed")
    assert number(run, "rebalance_gain", "greedy", "full") == pytest.approx(1 - full / contiguous)
    assert number(run, "repeat_gain", "greedy", "full") == pytest.approx(1 - full / reference(run))


def test_moves_are_weighed_against_the_time_of_a_step(tmp_path: Path) -> None:
    run = replayed(moving(tmp_path / "t.parquet"), tmp_path / "run", expert_ns=20_000_000)
    moved, time_ns = (number(run, f"rebalance_{name}", "greedy", "full") for name in ("moved_bytes", "time"))
    assert moved == pytest.approx(SIZE * number(run, "rebalance_moved_experts", "greedy", "full"))
    assert number(run, "rebalance_step_bytes", "greedy", "full") == pytest.approx(moved * 45 / 138)
    assert moved / 4 <= time_ns / 1e9 * 10**6 <= moved, "bytes of the slowest of four devices at 1 MB/s"
    gain = number(run, "repeat_gain", "greedy", "full")
    scale = reference(run) / number(run, "rebalanced_load", "contiguous", "fixed")
    step_ns = time_ns * 45 / 138
    for end in ("", "_low", "_high"):
        net, whole = (number(run, f"{name}{end}", "greedy", "full") for name in ("repeat_net_gain", "repeat_gain"))
        assert net == pytest.approx(whole - step_ns / (20_000_000 * scale))
    assert number(run, "break_even_time", "greedy", "full") == pytest.approx(step_ns / (gain * scale))
    first_ns = number(run, "first_move_time", "greedy", "full")
    assert number(run, "payback_steps", "greedy", "full") == pytest.approx(
        first_ns / (20_000_000 * number(run, "rebalance_gain", "greedy", "full"))
    )
    assert number(run, "rebalance_gain_low", "greedy", "once") < 0
    assert not any(row.key.metric == "payback_steps" and "once" in row.key.point for row in run.rows), "no gain to pay with"


def test_dear_moves_are_not_made_incrementally(tmp_path: Path) -> None:
    trace = moving(tmp_path / "t.parquet")
    run = replayed(trace, tmp_path / "run", expert_ns=1000)
    assert number(run, "rebalance_moved_experts", "greedy", "incremental") == 0
    assert number(run, "repeat_net_gain", "greedy", "full") < -1
    (line,) = (line for line in summary(of_replay(run)) if line.startswith("Placing again"))
    assert "no measurable gain" in line
    assert line.endswith("No exchange would save more time than it takes.")


def test_the_verdict_names_step_size_interval_and_cost(tmp_path: Path) -> None:
    trace = moving(tmp_path / "t.parquet")
    (line,) = (line for line in summary(of_replay(replayed(trace, tmp_path / "run"))) if line.startswith("Placing again"))
    assert line.startswith(
        "Placing again (decode, 4 devices, 32 tokens per step, every 3 steps from the last 6, without copies): "
        "incremental placement from contiguous gains "
    )
    assert (
        " over greedy placed once, on 138 steps: a measurable gain; the intervals of 3 strategies hold at once. It moves "
        in line
    )
    assert "That is worth it if the experts of a step take more than " in line
    run = replayed(trace, tmp_path / "timed", expert_ns=10**9)
    (line,) = (line for line in summary(of_replay(run)) if line.startswith("Placing again"))
    assert ": worth it; the intervals of 3 strategies hold at once. It moves " in line
    assert "Net of that time, with 1 s of experts in a step, " in line


def test_a_placement_that_never_moves_is_what_a_single_strategy_is_compared_with(tmp_path: Path) -> None:
    run = replayed(moving(tmp_path / "t.parquet"), tmp_path / "run", balancers=["contiguous"])
    (line,) = (line for line in summary(of_replay(run)) if line.startswith("Placing again"))
    assert " over contiguous placement, which never moves, on 138 steps: a measurable gain. It moves " in line


def test_loads_that_stay_need_no_second_placement(tmp_path: Path) -> None:
    run = replayed(moving(tmp_path / "t.parquet", moves=False), tmp_path / "run", expert_ns=10**7)
    (line,) = (line for line in summary(of_replay(run)) if line.startswith("Placing again"))
    assert ": no measurable gain; the intervals of 3 strategies hold at once." in line
    assert "It moves" not in line
    assert not any(row.key.metric == "break_even_time" for row in run.rows)


def test_the_table_has_the_best_of_each_schedule(tmp_path: Path) -> None:
    run = replayed(moving(tmp_path / "t.parquet"), tmp_path / "run", balancers=(), every=[6, 3])
    table, _ = rebalancing_blocks(of_replay(run), "decode")
    schedules = [("once", ""), ("full", "3"), ("full", "6"), ("incremental", "3"), ("incremental", "6")]
    assert [(row[1], row[2]) for row in table.rows] == [("fixed", ""), ("fixed", ""), *schedules, *schedules]
    assert [row[0] for row in table.rows[:2]] == ["contiguous", "round-robin"]
    assert {row[0] for row in table.rows[7:]} <= {*replicating()}


def test_options_are_recorded_and_rows_can_be_derived_again(tmp_path: Path) -> None:
    run = replayed(moving(tmp_path / "t.parquet"), tmp_path / "run", every=[6, 3], window=None, most_moves=1, expert_ns=5)
    balance = run.record.balanced
    assert (balance.every, balance.window, balance.most_moves, balance.expert_ns) == ([3, 6], 6, 1, 5)
    before = run.metrics
    recompute(Run.open(tmp_path / "run"))
    assert Run.open(tmp_path / "run").metrics.equals(before)


def test_a_phase_that_is_too_short_is_noted(tmp_path: Path) -> None:
    prompt, answer = ([[step % 4] for step in range(steps)] for steps in (4, 9))
    log = route_log(tmp_path / "chat.route.csv", answer, prefill=prompt)
    run = replay_placements(read_loads(log), PlacementOptions(devices=[2], every=[3], window=5), tmp_path / "run")
    assert "prefill: too few steps to place experts again (1)" in run.record.notes
    assert {row.key.phase for row in run.rows if row.key.metric == "repeat_gain"} == {"decode"}
    assert fault(lambda: replayed(log, tmp_path / "long", devices=[2], every=[3, 4], window=5)) == (
        "--every 4: to place again from 5 steps needs 10 steps (--window + --every + 1); the trace has 1 in prefill, 9 in decode"
    )


def test_a_real_chat_is_placed_once(shared_data: Path, tmp_path: Path) -> None:
    loads = read_loads(shared_data / "traces/gemma.route.csv", "decode", tokens_per_step=[4])
    options = PlacementOptions(balancers=["greedy"], devices=[8], every=[4], window=8)
    run = replay_placements(loads, options, tmp_path / "run")
    (line,) = (line for line in summary(of_replay(run)) if line.startswith("Placing again"))
    assert "no measurable gain" in line


def test_totals_have_no_order_to_place_again_along(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"top_k": 1, "layers": [0], "counts": {"a": [[30, 20, 5, 1]]}}')
    asked = PlacementOptions(balancers=["greedy"], devices=[2], every=[4])
    assert fault(lambda: replay_placements(read_loads(tmp_path / "one.json"), asked, tmp_path / "run")) == (
        f"--every 4: {tmp_path / 'one.json'} has totals, which have no order of steps"
    )
