"""A run directory is checked when it is read."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.run.replay import ReplayRequest
from moeprof.records.run.run import SCHEMA, Run, RunRecord
from moeprof.records.run.writer import RunWriter
from tests.records.run.runs import CHOICES, edited, empty_trace, fault, finished, record, run_of, trace_of, value_of
from tests.records.traces.traffics import rows_of, traffic_of

# run.json


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    assert fault(lambda: Run.open(tmp_path)) == f"run {tmp_path}: no such file or directory: run.json"
    assert "no such file" in fault(lambda: Run.open(tmp_path / "none"))


@pytest.mark.parametrize("keep", [0, 1, 100, -3])
def test_a_half_written_run_file_is_damaged(tmp_path: Path, keep: int) -> None:
    path = finished(tmp_path / "run")
    whole = (path / "run.json").read_bytes()
    (path / "run.json").write_bytes(whole[:keep])
    assert fault(lambda: Run.open(path)).startswith(f"run {path}: run.json is damaged: ")


@pytest.mark.parametrize("content", [b"[]", b"3", b"null", b"\xff\xfe", b"{}"])
def test_a_run_file_that_holds_no_run_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    assert fault(lambda: Run.open(tmp_path)).startswith(f"run {tmp_path}: run.json is damaged: ")


def test_the_key_that_is_wrong_in_a_run_file_is_named(tmp_path: Path) -> None:
    assert "command" in fault(lambda: Run.open(edited(finished(tmp_path / "run"), command=3)))


def test_a_run_of_a_newer_moeprof_is_refused_with_both_versions(tmp_path: Path) -> None:
    path = edited(finished(tmp_path / "run"), schema_version=SCHEMA + 1, moeprof_version="9.0", unheard_of={"x": 1})
    with pytest.raises(UsageError, match=r"written by moeprof 9\.0 with schema 3; moeprof .* reads up to schema 2") as caught:
        Run.open(path)
    assert caught.value.remedy == "Upgrade moeprof to read it."


def test_an_older_run_that_lacks_keys_is_read_with_their_defaults(tmp_path: Path) -> None:
    path = edited(finished(tmp_path / "run"), schema_version=None, noisy=None, notes=None, environment=None, weights_hash=None)
    run = Run.open(path)
    assert (run.record.schema_version, run.record.noisy, run.record.environment.cores, run.record.valid) == (
        SCHEMA,
        [],
        0,
        True,
    )


# metrics.csv


def rewritten(path: Path, old: str, new: str) -> Run:
    """The run with a piece of its metrics.csv replaced."""
    file = path / "metrics.csv"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    return Run.open(path)


def test_every_key_is_a_string_and_every_value_a_number(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    writer.add_metrics([MetricRow("capacity", 3.0, workload="lm", layer="3", rank="0", domain="NA")])
    table = writer.finish().metrics
    assert table.iloc[0].tolist() == ["lm", "", "NA", "", "", "0", "3", "", "", "capacity", "slots", "exact", 3.0]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=9))
@example([0.1 + 0.2, 5e-324, 1.7976931348623157e308, 3.0, -0.0, 7.0385307e-26, 9007199254740993.0])
@settings(max_examples=25, deadline=None)
def test_every_number_is_read_exactly_and_without_a_warning(
    tmp_path_factory: pytest.TempPathFactory, values: list[float]
) -> None:
    writer = RunWriter(tmp_path_factory.mktemp("runs") / "run", record())
    writer.add_metrics(MetricRow("capacity", value, workload="lm", layer=str(index)) for index, value in enumerate(values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert writer.finish().metrics["value"].tolist() == values


def test_an_older_table_without_a_column_has_it_empty(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    lines = [line.split(",") for line in (path / "metrics.csv").read_text().splitlines()]
    point = lines[0].index("point")
    (path / "metrics.csv").write_text("".join(",".join(cells[:point] + cells[point + 1 :]) + "\n" for cells in lines))
    run = Run.open(path)
    assert run.metrics["point"].tolist() == ["", ""]
    assert value_of(run, "waste_factor", layer="1") == 12.8


def test_a_complete_run_without_its_table_names_the_command_that_derives_it(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    (path / "metrics.csv").unlink()
    with pytest.raises(UsageError) as caught:
        _ = Run.open(path).metrics
    assert caught.value.what == f"run {path}: it has no metrics.csv"
    assert caught.value.remedy == f"Derive it again with `moeprof report {path} --recompute`."


@pytest.mark.parametrize("reasons", [["interrupted"], ["failed: rank 1 was killed by SIGKILL"]])
def test_a_run_that_was_stopped_may_have_no_table(tmp_path: Path, reasons: list[str]) -> None:
    path = edited(finished(tmp_path / "run"), valid=False, reasons=reasons)
    (path / "metrics.csv").unlink()
    assert len(Run.open(path).metrics) == 0


def test_two_rows_at_one_address_are_damage(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    with (path / "metrics.csv").open("a") as file:
        file.write("lm,,,,,,1,,,waste_factor,ratio,routed,12.8\n")
    what = fault(lambda: Run.open(path).metrics)
    assert what == f"run {path}: metrics.csv is damaged: waste_factor is recorded twice at one address"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("12.8", "twelve"),
        ("12.8", ""),
        ("12.8", "nan"),
        ("12.8", "inf"),
        ("12.8", "12.8,7"),
        (",waste_factor", ","),
        (",routed,12.8\n", ""),
        ("workload,", "wrkload,"),
        (",value", ",valeu"),
    ],
)
def test_a_table_with_a_wrong_cell_is_damaged(tmp_path: Path, old: str, new: str) -> None:
    run = rewritten(finished(tmp_path / "run"), old, new)
    assert fault(lambda: run.metrics).startswith(f"run {tmp_path}/run: metrics.csv is damaged: ")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a,b\n1,2\n"])
def test_a_file_that_is_no_table_is_damaged(tmp_path: Path, content: bytes) -> None:
    path = finished(tmp_path / "run")
    (path / "metrics.csv").write_bytes(content)
    assert fault(lambda: Run.open(path).metrics).startswith(f"run {path}: metrics.csv is damaged: ")


# The other files


@pytest.mark.parametrize("content", [b"", b"PAR1", b"text"])
def test_damaged_samples_are_refused(tmp_path: Path, content: bytes) -> None:
    path = finished(tmp_path / "run")
    (path / "samples.parquet").write_bytes(content)
    assert fault(lambda: Run.open(path).samples).startswith(f"run {path}: samples.parquet is damaged: ")


def test_a_damaged_trace_is_named(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    file = path / "routing" / "score-static-rank0.parquet"
    file.write_bytes(file.read_bytes()[:50])
    assert fault(lambda: Run.open(path).traces).startswith(f"routing trace {file}: ")


def test_traffic_is_whole_after_every_part_and_empty_where_there_was_none(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    assert Run.open(tmp_path / "run").traffic.collectives == []
    for number, variant in enumerate(("static", "dynamic"), start=1):
        writer.add_traffic(traffic_of(rows_of([[8]], [(1, 2, 3)], variant=variant)))
        assert len(Run.open(tmp_path / "run").traffic.collectives) == number
    assert [one.variant for one in Run.open(tmp_path / "run").traffic.collectives] == ["static", "dynamic"]


def test_damaged_traffic_is_named(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    (path / "traffic.parquet").write_bytes(b"PAR1")
    assert fault(lambda: Run.open(path).traffic).startswith(f"traffic {path / 'traffic.parquet'}: ")


def test_traces_are_found_by_phase_and_variant(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    for part in (empty_trace("score"), empty_trace("decode"), empty_trace("decode", "dynamic"), empty_trace("score", rank=1)):
        writer.add_trace(part)
    run = writer.finish()
    assert len(run.traces) == 4
    found = [run.trace("score", "static"), run.trace("decode", "dynamic"), run.trace("encode", "static")]
    assert [part.file_name if part is not None else None for part in found] == [
        "score-static-rank0.parquet",
        "decode-dynamic-rank0.parquet",
        None,
    ]


def test_the_trace_of_a_phase_holds_the_decisions_of_all_ranks(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", traces=[trace_of(CHOICES[:2]), trace_of(CHOICES[2:], rank=1), trace_of(phase="decode")])
    found = run.trace("score", "static")
    assert found is not None
    assert found.column("expert").tolist() == [expert for *_, expert in CHOICES]
    assert found.names("layer") == ["1", "3"]


# Replays


def replay(**changes: Any) -> ReplayRequest:
    trace = {"name": "talk", "path": "talk.route.csv", "workload": "lm", "num_experts": 4, "top_k": 2, "layers": ["1"]}
    settled = {"policies": ["lru"], "slots": [2], "access": "batch", "phase": "all", "bandwidth": 10**9}
    return ReplayRequest.model_validate({"trace": trace | {"decisions": {"decode/imported": "a" * 64}}} | settled | changes)


def test_a_replay_is_a_run_without_a_recipe(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", RunRecord(command="replay", replay=replay()))
    writer.add_metrics([MetricRow("misses", 3, workload="lm", phase="decode", point="policy=lru;slots=2")])
    run = writer.finish()
    assert (run.record.name, run.record.workload, run.record.recipe) == ("talk", "lm", None)
    assert run.record.replayed == replay()
    assert value_of(run, "misses", phase="decode", point="policy=lru;slots=2") == 3


def test_the_sizes_of_a_replay_are_slots_or_budgets() -> None:
    assert (replay().swept, replay().sizes) == ("slots", [2])
    budgets = replay(slots=[], budgets=[5000])
    assert (budgets.swept, budgets.sizes) == ("budget_bytes", [5000])


@pytest.mark.parametrize(
    "changes",
    [
        {"command": "replay"},
        {"recipe": None},
        {"command": "replay", "recipe": None},
        {"replay": replay().model_dump()},
        {"command": "characterize", "recipe": None, "replay": replay().model_dump()},
        {"command": "replay", "recipe": None, "replay": replay().model_dump() | {"slots": [0]}},
        {"command": "replay", "recipe": None, "replay": replay().model_dump() | {"slots": []}},
        {"command": "replay", "recipe": None, "replay": replay().model_dump() | {"slots": [3, 2]}},
        {"command": "replay", "recipe": None, "replay": replay().model_dump() | {"budgets": [5]}},
        {"command": "replay", "recipe": None, "replay": replay().model_dump() | {"bandwidth": 0}},
        {"command": "replay", "recipe": None, "replay": replay().model_dump() | {"colour": "red"}},
    ],
)
def test_a_record_that_is_neither_a_run_of_a_model_nor_a_replay_is_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = edited(finished(tmp_path / "run"), **changes)
    assert "run.json is damaged" in fault(lambda: Run.open(path))
