"""A run directory is claimed once, never overwritten by accident, invalid until it is finished, and checked when read."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.replay import ReplayRequest
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter, UnwrittenRun, default_folder, end_in_its_place
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader
from tests.records.runs import CHOICES, run_of, trace_of
from tests.records.traffics import rows_of, traffic_of


def record(**changes: Any) -> RunRecord:
    return RunRecord(command="characterize", recipe=load_recipe("lm-tiny"), **changes)


def trace(phase: str = "score", variant: str = "static", rank: int = 0) -> RoutingTrace:
    header = TraceHeader(workload="lm", phase=phase, variant=variant, rank=rank, num_experts=4, top_k=2, layers=["1"])
    return RoutingTrace(header, COLUMNS.empty_table())


def finished(path: Path) -> Path:
    """A small finished run."""
    writer = RunWriter(path, record(argv=["moeprof", "characterize"], text_hashes={"wiki": "abc"}))
    row = MetricRow("throughput", 0.1 + 0.2, workload="lm", phase="score", variant="static")
    writer.add_metrics([row, MetricRow("waste_factor", 12.8, workload="lm", layer="1")])
    writer.add_samples(row, [0.25, 0.5])
    writer.add_trace(trace())
    writer.finish()
    return path


def fault(call: Any) -> str:
    with pytest.raises(UsageError) as caught:
        call()
    assert str(caught.value).count("\n") == 1
    return caught.value.what


def edited(path: Path, **changes: Any) -> Path:
    """The run with keys of run.json changed; None removes one."""
    document = json.loads((path / "run.json").read_text()) | changes
    (path / "run.json").write_text(json.dumps({key: value for key, value in document.items() if value is not None}))
    return path


# Writing


def test_a_finished_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    run = Run.open(finished(tmp_path / "run"))
    assert (run.record.valid, run.record.reasons) == (True, [])
    assert (run.record.command, run.record.text_hashes) == ("characterize", {"wiki": "abc"})
    assert run.record.recipe == load_recipe("lm-tiny")
    assert run.record.started <= run.record.finished
    assert run.value("throughput", phase="score", variant="static") == 0.1 + 0.2
    assert run.value("waste_factor", layer="1") == 12.8
    assert run.value("waste_factor", layer="2") is None
    assert run.samples[["metric", "round", "value"]].to_numpy().tolist() == [["throughput", 0, 0.25], ["throughput", 1, 0.5]]
    assert [path.name for path in sorted((tmp_path / "run").rglob("*"))] == [
        "metrics.csv",
        "routing",
        "score-static-rank0.parquet",
        "run.json",
        "samples.parquet",
    ]


def test_a_run_is_invalid_until_it_is_finished(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    writer.add_metrics([MetricRow("capacity", 3.0, workload="lm")])
    begun = Run.open(tmp_path / "run")
    assert (begun.record.valid, begun.record.reasons, begun.record.finished) == (False, ["not finished"], "")
    assert begun.record.started
    assert (len(begun.metrics), len(begun.samples), begun.traces) == (0, 0, [])
    assert begun.value("capacity") is None


def test_a_record_that_claims_to_be_valid_is_still_invalid_until_finished(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", record(valid=True, reasons=[]))
    assert not Run.open(tmp_path / "run").record.valid


def test_a_run_with_reasons_against_it_is_finished_but_invalid(tmp_path: Path) -> None:
    run = RunWriter(tmp_path / "run", record()).finish("interrupted", "too few rounds")
    assert (run.record.valid, run.record.reasons) == (False, ["interrupted", "too few rounds"])
    assert run.record.finished


def test_traces_are_found_by_phase_and_variant(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    for part in (trace("score"), trace("decode"), trace("decode", "dynamic"), trace("score", rank=1)):
        writer.add_trace(part)
    run = writer.finish()
    assert len(run.traces) == 4
    found = [run.trace("score"), run.trace("decode", "dynamic"), run.trace("encode")]
    assert [part.file_name if part is not None else None for part in found] == [
        "score-static-rank0.parquet",
        "decode-dynamic-rank0.parquet",
        None,
    ]


def test_the_trace_of_a_phase_holds_the_decisions_of_all_ranks(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", traces=[trace_of(CHOICES[:2]), trace_of(CHOICES[2:], rank=1), trace_of(phase="decode")])
    found = run.trace("score")
    assert found is not None
    assert found.column("expert").tolist() == [expert for *_, expert in CHOICES]
    assert found.names("layer") == ["1", "3"]


def test_samples_of_numpy_are_kept_with_their_address(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    writer.add_samples(MetricRow("step_latency", 1.0, workload="lm", phase="decode"), np.array([3.0, 4.0]))  # type: ignore[arg-type]
    samples = writer.finish().samples
    assert samples["value"].tolist() == [3.0, 4.0]
    assert set(samples["phase"]) == {"decode"}


def test_a_folder_by_default_is_named_by_recipe_command_and_time() -> None:
    assert default_folder("lm-tiny", "characterize").match("reports/lm-tiny-characterize-20[0-9][0-9]*T*Z")


# Claiming


def test_a_new_or_an_empty_folder_is_claimed_with_its_parents(tmp_path: Path) -> None:
    RunWriter(tmp_path / "a" / "b" / "run", record())
    (tmp_path / "empty").mkdir()
    RunWriter(tmp_path / "empty", record())
    assert not Run.open(tmp_path / "empty").record.valid


def test_an_older_run_is_kept_unless_forced(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert fault(lambda: RunWriter(path, record())) == f"output folder {path}: it exists already"
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_force_replaces_an_older_run_wholly(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    RunWriter(path, record(), force=True)
    assert [file.name for file in path.rglob("*")] == ["run.json"]
    assert not Run.open(path).record.valid


def test_force_replaces_an_interrupted_run_and_one_with_reports(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", record())
    (tmp_path / "run" / "report.md").write_text("# report")
    RunWriter(tmp_path / "run", record(), force=True)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["run.json"]


def test_force_never_removes_a_folder_that_holds_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in (False, True):
        fault(lambda force=force: RunWriter(tmp_path, record(), force=force))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_force_never_removes_a_folder_with_the_run_file_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"scripts": {"start": "node run.js"}}')
    (tmp_path / "thesis.txt").write_text("years of work")
    fault(lambda: RunWriter(tmp_path, record(), force=True))
    assert (tmp_path / "thesis.txt").exists()


def test_force_never_removes_what_lies_in_a_run_but_is_not_of_it(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    (path / "thesis.txt").write_text("years of work")
    fault(lambda: RunWriter(path, record(), force=True))
    assert (path / "thesis.txt").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_no_output_folder(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("x")
    assert fault(lambda: RunWriter(tmp_path / "file", record(), force=force)).startswith(f"output folder {tmp_path}/file: ")
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    what = fault(lambda: RunWriter(tmp_path / "file" / "run", record()))
    assert what == f"output folder {tmp_path}/file/run: not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    what = fault(lambda: RunWriter(tmp_path / "locked" / "run", record()))
    assert what == f"output folder {tmp_path}/locked/run: permission denied"


def test_a_link_to_a_run_is_not_followed_by_force(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    fault(lambda: RunWriter(tmp_path / "link", record(), force=True))
    assert Run.open(tmp_path / "run").record.valid


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
    path = edited(finished(tmp_path / "run"), schema_version=2, moeprof_version="9.0", unheard_of={"x": 1})
    with pytest.raises(UsageError, match=r"written by moeprof 9\.0 with schema 2, this is .* with schema 1") as caught:
        Run.open(path)
    assert caught.value.remedy == "Upgrade moeprof to read it."


def test_an_older_run_that_lacks_keys_is_read_with_their_defaults(tmp_path: Path) -> None:
    path = edited(finished(tmp_path / "run"), schema_version=None, noisy=None, notes=None, environment=None, weights_hash=None)
    run = Run.open(path)
    assert (run.record.schema_version, run.record.noisy, run.record.environment.cores, run.record.valid) == (1, [], 0, True)


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
    assert run.value("waste_factor", layer="1") == 12.8


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


@pytest.mark.parametrize("step", ["add_trace", "add_traffic", "finish"])
def test_a_write_that_is_interrupted_leaves_a_readable_run_marked_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def half_written(*arguments: Any, **_: Any) -> None:
        target = next(argument for argument in arguments if isinstance(argument, Path))
        target.write_bytes(b"PAR1 or workload,pha")
        raise KeyboardInterrupt

    writer = RunWriter(tmp_path / "run", record())
    writer.add_metrics([MetricRow("capacity", 3.0, workload="lm")])
    monkeypatch.setattr("moeprof.records.traces.columns.pq.write_table", lambda table, path, **_: half_written(Path(path)))
    monkeypatch.setattr("moeprof.records.metrics.registry.csv.writer", lambda file, **_: half_written(Path(file.name)))
    parts = {"add_trace": [trace()], "add_traffic": [traffic_of(rows_of([[8]], [(1, 2, 3)]))], "finish": []}
    with pytest.raises(KeyboardInterrupt):
        getattr(writer, step)(*parts[step])
    run = Run.open(tmp_path / "run")
    assert not run.record.valid
    assert (run.traces, run.traffic.collectives, len(run.metrics), len(run.samples)) == ([], [], 0, 0)


# Ranks


def test_a_run_that_is_not_to_be_written_takes_everything_and_leaves_nothing(tmp_path: Path) -> None:
    writer = UnwrittenRun(tmp_path / "run", record())
    writer.add_trace(trace())
    writer.add_memory(pa.table({}))
    writer.add_traffic(traffic_of(rows_of([[8]], [(1, 2, 3)])))
    writer.add_metrics([MetricRow("capacity", 3.0, workload="lm")])
    assert [row.value for row in writer.metrics.rows] == [3.0]
    assert writer.finish().path == tmp_path / "run"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reasons", [None, ["failed: another rank is gone"], ["interrupted"]])
def test_whoever_started_the_ranks_has_the_last_word_on_a_run_that_did_not_end_well(
    tmp_path: Path, reasons: list[str] | None
) -> None:
    writer = RunWriter(tmp_path / "run", record())
    if reasons is not None:
        writer.finish(*reasons)
    ended = end_in_its_place(tmp_path / "run", "failed: rank 1 was killed by SIGKILL")
    run = Run.open(tmp_path / "run")
    assert ended is not None
    assert ended.record == run.record
    assert (run.record.valid, run.record.reasons) == (False, ["failed: rank 1 was killed by SIGKILL"])
    assert run.record.finished


@pytest.mark.parametrize("reasons", [[], ["too few rounds: 3, at least 5 are needed"]])
def test_a_run_that_came_to_its_end_keeps_its_verdict(tmp_path: Path, reasons: list[str]) -> None:
    RunWriter(tmp_path / "run", record()).finish(*reasons)
    ended = end_in_its_place(tmp_path / "run", "interrupted")
    assert ended is not None
    assert Run.open(tmp_path / "run").record.reasons == reasons == ended.record.reasons
    assert end_in_its_place(tmp_path / "nothing", "interrupted") is None


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
    assert run.value("misses", phase="decode", point="policy=lru;slots=2") == 3


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
