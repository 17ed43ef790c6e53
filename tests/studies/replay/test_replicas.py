"""How many redundant experts are worth their memory."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from moeprof.analysis.run_metrics import RunMetrics, of_replay
from moeprof.records.metrics.row import EMPTY, RecordedRow
from moeprof.records.run.run import Run
from moeprof.reporters.documents.balance import summary
from moeprof.reporters.sections.replicas import last_worth, numbers, replica_answer, replica_blocks
from moeprof.studies.recompute import recompute
from moeprof.studies.replay.loads import read_loads
from moeprof.studies.replay.placements import PlacementOptions, replay_placements
from tests.analysis.traces import Row, trace_of
from tests.records.run.runs import fault, value_of

SIZE, EXPERTS, STEPS = 1000, 8, 40
AT = {"phase": "decode", "variant": "static"}


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Steps of 64 tokens of which expert 0 takes half: two copies of it are needed on four devices, and no more."""
    weights = np.array([7, *[1] * 7]) / 14
    generator = np.random.default_rng(0)
    rows = [
        Row(step, int(expert), sequence=token)
        for step in range(STEPS)
        for token, expert in enumerate(generator.choice(EXPERTS, 64, p=weights))
    ]
    trace_of(rows, num_experts=EXPERTS).write(tmp_path / "t.parquet")
    return tmp_path / "t.parquet"


def replayed(trace: Path, folder: Path, **asked: object) -> Run:
    options = {"balancers": ["greedy", "eplb", "eplb-distinct"], "devices": [4]} | asked
    return replay_placements(read_loads(trace, expert_bytes=SIZE), PlacementOptions(**options), folder)  # type: ignore[arg-type]


def test_each_number_has_the_loads_of_a_replay_with_this_number_alone(trace: Path, tmp_path: Path) -> None:
    several = replayed(trace, tmp_path / "several", replicas=0, replica_numbers=[0, 2, 1])
    for number in (0, 1, 2):
        alone = replayed(trace, tmp_path / str(number), replicas=number)
        loads = {}
        for name in ("eplb", "eplb-distinct", *(() if number else ("contiguous", "greedy"))):
            points = f"balancer={name};devices=4", f"balancer={name};devices=4;replicas={number}"
            gains = () if name == "contiguous" else ("load_gain", "load_gain_low", "load_gain_high")
            for metric in ("avg_max_load", "device_slots", *gains):
                one, other = (value_of(run, metric, point=at, **AT) for run, at in zip((alone, several), points, strict=True))
                assert one == pytest.approx(other)
            loads[name] = value_of(several, "avg_max_load", point=points[1], **AT)
        best = min(loads, key=lambda name: loads[name] or 0.0)
        at = AT | {"point": f"devices=4;replicas={number}", "category": best}
        assert value_of(several, "replicas_load", **at) == loads[best]
        assert value_of(several, "replicas_bytes", **at) == number * 4 * SIZE
    rows = {row.key.point: row.value for row in several.rows if row.key.metric == "replicas_gain"}
    loads_of = {row.key.point: row.value for row in several.rows if row.key.metric == "replicas_load"}
    assert rows == pytest.approx(
        {
            f"devices=4;replicas={number}": 1
            - loads_of[f"devices=4;replicas={number}"] / loads_of[f"devices=4;replicas={number - 1}"]
            for number in (1, 2)
        }
    )


def test_the_headline_says_which_number_is_the_last_that_is_worth_its_memory(trace: Path, tmp_path: Path) -> None:
    run = replayed(trace, tmp_path / "run", replicas=1, replica_numbers=[1, 0, 2, 6])
    (line,) = (line for line in summary(of_replay(run)) if line.startswith("Redundant experts"))
    assert line.startswith("Redundant experts (decode, 4 devices): of 0, 1, 2, 6 extra slots per layer and device, ")
    (table,) = replica_blocks(of_replay(run), "decode")
    (chosen,) = (row for row in table.rows if "last worth its memory" in row[0])
    assert f", {chosen[0].split()[0]} is the last number that is worth its memory ({chosen[2]} on all devices)" in line
    assert run.record.balanced.replica_numbers == [1, 0, 2, 6]
    before = run.metrics
    recompute(Run.open(tmp_path / "run"))
    assert Run.open(tmp_path / "run").metrics.equals(before)


def with_lows(run: Run, lows: dict[int, float]) -> RunMetrics:
    """The numbers of a run whose gains over the next smaller number of slots have these lower ends."""
    rows = [
        replace(row, value=lows[int(row.swept["replicas"])]) if row.key.metric == "replicas_gain_low" else row
        for row in run.rows
    ]
    return RunMetrics.from_rows(run.record, rows).at(variant="static")


def test_a_gain_whose_interval_reaches_0_is_not_shown_to_be_worth_its_memory(trace: Path, tmp_path: Path) -> None:
    run = replayed(trace, tmp_path / "run", replicas=0, replica_numbers=[0, 1, 2])
    assert last_worth(numbers(of_replay(run), "decode")).swept["replicas"] == "1"
    (told,) = replica_answer(with_lows(run, {1: 0.01, 2: 0.01}), "decode")
    assert "1 is the last number that is worth its memory (3.91 KiB on all devices): 1 gains " in told
    assert " (95% interval 1.0% to " in told
    assert told.endswith(" over 0.")
    (told,) = replica_answer(with_lows(run, {1: 0.0, 2: 0.01}), "decode")
    assert "no number above 0 is shown to be worth its memory; 1 gains " in told
    assert told.endswith(" over 0, which does not show that it is.")


def row_of(number: int, load: float) -> RecordedRow:
    return RecordedRow(EMPTY._replace(point=f"devices=8;replicas={number}"), "fraction", "routed", load)


def test_the_rule_takes_the_smallest_number_within_one_percent_of_the_least() -> None:
    rows = [row_of(0, 0.30), row_of(1, 0.202), row_of(2, 0.200), row_of(4, 0.2005)]
    assert last_worth(rows) is rows[1], "2 lowers the load by 1%"
    assert last_worth([*rows, row_of(8, 0.19)]).swept["replicas"] == "8"
    assert last_worth(rows[:1]) is rows[0]


def test_totals_of_one_domain_compare_numbers_without_gains_and_those_of_several_do_not(tmp_path: Path) -> None:
    for name, counts in (("one", '{"a": [[30, 20, 5, 1]]}'), ("two", '{"a": [[30, 20, 5, 1]], "b": [[9, 9, 9, 1]]}')):
        (tmp_path / f"{name}.json").write_text(f'{{"top_k": 1, "layers": [0], "counts": {counts}}}')
    asked = PlacementOptions(balancers=["eplb-distinct"], devices=[2], replicas=0, replica_numbers=[0, 1])
    run = replay_placements(read_loads(tmp_path / "one.json"), asked, tmp_path / "run")
    loads = [row.value for row in run.rows if row.key.metric == "replicas_load"]
    assert loads == pytest.approx([31 / 56, 30 / 56]), "by hand: 30 + 1 alone, and 15 + 10 + 5 with copies of experts 0 and 1"
    assert not any(row.key.metric in ("replicas_gain", "load_gain") for row in run.rows)
    assert fault(lambda: replay_placements(read_loads(tmp_path / "two.json"), asked, tmp_path / "other")) == (
        f"--replicas 0,1: no domain of {tmp_path / 'two.json'} has two steps, one to place by and one to test on"
    )


def test_even_loads_need_no_copies(tmp_path: Path) -> None:
    rows = [Row(step, expert, sequence=expert) for step in range(STEPS) for expert in range(EXPERTS)]
    trace_of(rows, num_experts=EXPERTS).write(tmp_path / "even.parquet")
    run = replayed(tmp_path / "even.parquet", tmp_path / "run", replicas=0, replica_numbers=[0, 1])
    assert any("no number above 0 is worth its memory: avg max load 25.0%" in line for line in summary(of_replay(run)))
