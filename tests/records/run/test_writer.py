"""A run directory is claimed once, never overwritten by accident, and invalid until it is finished."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.raw_tables import MOVES
from moeprof.records.run.run import Run
from moeprof.records.run.writer import RunWriter, UnwrittenRun, end_in_its_place
from tests.records.run.runs import empty_trace, fault, finished, record, value_of
from tests.records.traces.traffics import rows_of, traffic_of

# Writing


def test_a_finished_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    run = Run.open(finished(tmp_path / "run"))
    assert (run.record.valid, run.record.reasons) == (True, [])
    assert (run.record.command, run.record.text_hashes) == ("characterize", {"wiki": "abc"})
    assert run.record.recipe == load_recipe("lm-tiny")
    assert run.record.started <= run.record.finished
    assert value_of(run, "throughput", phase="score", variant="static") == 0.1 + 0.2
    assert value_of(run, "waste_factor", layer="1") == 12.8
    assert value_of(run, "waste_factor", layer="2") is None
    assert run.samples[["metric", "round", "value"]].to_numpy().tolist() == [["throughput", 0, 0.25], ["throughput", 1, 0.5]]
    assert [path.name for path in sorted((tmp_path / "run").rglob("*"))] == [
        "dictionary.json",
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
    assert value_of(begun, "capacity") is None


def test_a_record_that_claims_to_be_valid_is_still_invalid_until_finished(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", record(valid=True, reasons=[]))
    assert not Run.open(tmp_path / "run").record.valid


def test_a_run_with_reasons_against_it_is_finished_but_invalid(tmp_path: Path) -> None:
    run = RunWriter(tmp_path / "run", record()).finish("interrupted", "too few rounds")
    assert (run.record.valid, run.record.reasons) == (False, ["interrupted", "too few rounds"])
    assert run.record.finished


def test_samples_of_numpy_are_kept_with_their_address(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    writer.add_samples(MetricRow("step_latency", 1.0, workload="lm", phase="decode"), np.array([3.0, 4.0]))  # type: ignore[arg-type]
    samples = writer.finish().samples
    assert samples["value"].tolist() == [3.0, 4.0]
    assert set(samples["phase"]) == {"decode"}


@pytest.mark.parametrize("step", ["append", "add_trace", "add_traffic", "finish"])
def test_a_write_that_is_interrupted_leaves_a_readable_run_marked_invalid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def half_written(*arguments: Any, **_: Any) -> None:
        target = next(argument for argument in arguments if isinstance(argument, Path))
        target.write_bytes(b"PAR1 or workload,pha")
        raise KeyboardInterrupt

    writer = RunWriter(tmp_path / "run", record())
    writer.add_metrics([MetricRow("capacity", 3.0, workload="lm")])
    monkeypatch.setattr("pyarrow.parquet.write_table", lambda table, file, **_: half_written(Path(file.name)))
    monkeypatch.setattr("moeprof.records.metrics.registry.csv.writer", lambda file, **_: half_written(Path(file.name)))
    parts: dict[str, list[Any]] = {
        "append": [MOVES, moves(4096)],
        "add_trace": [empty_trace()],
        "add_traffic": [traffic_of(rows_of([[8]], [(1, 2, 3)]))],
        "finish": [],
    }
    with pytest.raises(KeyboardInterrupt):
        getattr(writer, step)(*parts[step])
    run = Run.open(tmp_path / "run")
    assert not run.record.valid
    assert (run.traces, run.traffic.collectives, len(run.metrics), len(run.samples)) == ([], [], 0, 0)
    assert len(run.raw(MOVES)) == 0


# Raw tables and derivation


def moves(*received_bytes: int) -> pa.Table:
    """Rows of the raw table `moves`."""
    rows = [
        {"phase": "score", "variant": "dynamic", "rank": rank, "received_bytes": size, "time_ns": 7}
        for rank, size in enumerate(received_bytes)
    ]
    return pa.Table.from_pylist(rows, schema=MOVES.schema)


def moved_bytes(run: Run) -> list[Samples]:
    """A derivation: what all ranks received, beside what each did."""
    received = run.raw(MOVES).column("received_bytes").to_pylist()
    return [(MetricRow("moved_bytes", sum(received), run.record.workload), received)]


def test_a_raw_table_is_whole_on_disk_after_every_part(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    for number, part in enumerate((moves(5, 7), moves(), moves(11))):
        writer.append(MOVES, part)
        read = Run.open(tmp_path / "run").raw(MOVES)
        assert read.column("received_bytes").to_pylist() == [[5, 7], [5, 7], [5, 7, 11]][number]
        assert read.schema.equals(MOVES.schema)


def test_the_rows_of_a_run_are_derived_when_it_ends_from_what_was_recorded(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record(), derive=moved_bytes)
    writer.append(MOVES, moves(5, 7))
    assert len(Run.open(tmp_path / "run").metrics) == 0
    run = writer.finish()
    assert value_of(run, "moved_bytes") == 12
    assert run.samples[["metric", "round", "value"]].to_numpy().tolist() == [["moved_bytes", 0, 5], ["moved_bytes", 1, 7]]


@pytest.mark.parametrize(
    ("cause", "reason"),
    [(KeyboardInterrupt(), "interrupted"), (ValueError("no such expert\nat all"), "failed: no such expert")],
)
def test_a_run_that_stops_early_is_salvaged_in_place_of_derived(tmp_path: Path, cause: BaseException, reason: str) -> None:
    def unfit(_: Run) -> list[Samples]:
        raise AssertionError("what stopped early must not be derived as if it were complete")

    writer = RunWriter(tmp_path / "run", record(), derive=unfit, salvage=moved_bytes)
    with pytest.raises(type(cause)), writer.guarded():  # noqa: PT012
        writer.append(MOVES, moves(5))
        raise cause
    run = Run.open(tmp_path / "run")
    assert (run.record.valid, run.record.reasons) == (False, [reason])
    assert value_of(run, "moved_bytes") == 5


def test_without_memory_nothing_is_derived_and_the_reason_is_recorded(tmp_path: Path) -> None:
    def unfit(_: Run) -> list[Samples]:
        raise AssertionError("a library without memory would end the process")

    writer = RunWriter(tmp_path / "run", record(), derive=unfit, salvage=unfit)
    with pytest.raises(MemoryError), writer.guarded():  # noqa: PT012
        writer.append(MOVES, moves(5))
        raise MemoryError
    run = Run.open(tmp_path / "run")
    assert (run.record.valid, run.record.reasons) == (False, ["failed: out of memory"])
    assert run.raw(MOVES).column("received_bytes").to_pylist() == [5]
    assert len(run.metrics) == 0


def test_a_raw_table_that_is_damaged_is_named(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", record())
    writer.append(MOVES, moves(5))
    file = tmp_path / "run" / "moves.parquet"
    file.write_bytes(file.read_bytes()[:-9])
    assert fault(lambda: Run.open(tmp_path / "run").raw(MOVES)).startswith(f"run {tmp_path}/run: moves.parquet is damaged: ")


# Ranks


def test_a_run_that_is_not_to_be_written_takes_everything_and_leaves_nothing(tmp_path: Path) -> None:
    writer = UnwrittenRun(tmp_path / "run", record())
    writer.add_trace(empty_trace())
    writer.add_memory(pa.table({}))
    writer.add_traffic(traffic_of(rows_of([[8]], [(1, 2, 3)])))
    writer.append(MOVES, moves(4096))
    row = MetricRow("capacity", 3.0, workload="lm")
    writer.add_metrics([row])
    writer.add_samples(row, [2.0, 4.0])
    assert writer.finish().path == tmp_path / "run"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reasons", [None, ["failed: another rank has ended"], ["interrupted"]])
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
