"""A run directory says what its metrics and the columns of its files are."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import COLUMNS, METRICS
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.columns import NOTES, OF_FILES, note_of
from moeprof.records.run.dictionary import described
from moeprof.records.run.raw_tables import RAW_TABLES
from moeprof.records.run.run import MEMORY_SCHEMA, SAMPLE_COLUMNS, Run
from moeprof.records.traces import expert_loads, routing_trace, traffic
from moeprof.studies.characterize import characterization
from moeprof.studies.recompute import recompute

FILES = {
    **{table.file_name: table.schema.names for table in RAW_TABLES},
    "metrics.csv": COLUMNS,
    "samples.parquet": SAMPLE_COLUMNS,
    "memory.parquet": MEMORY_SCHEMA.names,
    "traffic.parquet": traffic.COLUMNS.names,
    "loads.parquet": expert_loads.COLUMNS.names,
    "decode-static-rank0.parquet": routing_trace.COLUMNS.names,
}
"""Every kind of file with columns, by a name of it."""


@pytest.fixture
def run(micro: Callable[[str], Path], tmp_path: Path) -> Run:
    return characterization().run(load_recipe(str(micro("lm"))), tmp_path / "run")


def test_the_dictionary_has_every_metric_of_the_run_as_it_is_declared(run: Run) -> None:
    entries = {entry["metric"]: entry for entry in json.loads((run.path / "dictionary.json").read_text())["metrics"]}
    assert set(entries) == set(run.metrics["metric"])
    for row in run.rows:
        assert entries[row.key.metric]["unit"] == row.unit
        assert entries[row.key.metric]["formula"] == METRICS[row.key.metric].formula
        assert entries[row.key.metric]["better"] in ("lower", "higher", "neither")


def test_the_dictionary_has_every_column_of_every_file_with_its_type(run: Run) -> None:
    files = json.loads((run.path / "dictionary.json").read_text())["files"]
    paths = {path.relative_to(run.path).as_posix(): path for path in run.path.rglob("*.parquet")}
    assert set(files) == {*paths, "metrics.csv"}
    assert [entry["column"] for entry in files["metrics.csv"]] == list(COLUMNS)
    for name, path in paths.items():
        schema = pq.read_schema(path)
        assert [(entry["column"], entry["type"]) for entry in files[name]] == [(one.name, str(one.type)) for one in schema]
        assert all(entry["meaning"] for entry in files[name])


def test_a_damaged_file_that_no_number_needs_is_named_before_anything_is_replaced(run: Run) -> None:
    numbers = (run.path / "metrics.csv").read_bytes()
    for damage in (b"", b"PAR1", (run.path / "memory.parquet").read_bytes()[:-9]):
        (run.path / "memory.parquet").write_bytes(damage)
        with pytest.raises(UsageError, match=r"memory\.parquet: damaged\nRepeat the run") as caught:
            recompute(Run.open(run.path))
        assert str(caught.value).startswith(f"run {run.path}: ")
        assert (run.path / "metrics.csv").read_bytes() == numbers


def test_every_column_that_moeprof_writes_has_a_meaning_and_no_other_has_one() -> None:
    written = {(name, column) for name, columns in FILES.items() for column in columns}
    assert all(note_of(*one).meaning for one in written)
    assert {column for _, column in written} == set(NOTES)
    assert set(OF_FILES) <= written


def test_the_name_of_a_column_of_time_or_size_ends_with_its_unit() -> None:
    endings = {"ns": "ns", "bytes": "bytes", "mj": "mJ", "nats": "nats"}
    named = {column: ending for column in NOTES if (ending := column.rpartition("_")[2]) in endings}
    assert {column: NOTES[column].unit for column in named} == {column: endings[ending] for column, ending in named.items()}
    assert len(named) > 10


def test_a_metric_of_another_version_is_left_out_and_each_is_listed_once() -> None:
    assert [entry["metric"] for entry in described(["throughput", "of another version", "throughput"])] == ["throughput"]


def test_a_run_without_a_dictionary_opens_and_gets_one_when_it_is_derived_again(run: Run) -> None:
    before = (run.path / "dictionary.json").read_text()
    (run.path / "dictionary.json").unlink()
    assert Run.open(run.path).rows == run.rows
    recompute(Run.open(run.path))
    assert (run.path / "dictionary.json").read_text() == before
