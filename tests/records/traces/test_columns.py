"""What another process packed is the same table here; Parquet is read if its rows fit in memory, which a small file may not show."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeprof.records.system import inputs
from moeprof.records.traces.columns import CELL_BYTES, NAMES, packed, read_table, read_with_header, unpacked, with_columns
from tests.records.system.pipes import fed

ROWS = 200_000


@pytest.fixture
def constant(tmp_path: Path) -> Path:
    """Two columns of one value each, in a file of a few kilobytes."""
    table = pa.table({name: pa.array([7] * ROWS, pa.int64()) for name in ("step", "expert")})
    pq.write_table(table, tmp_path / "constant.parquet", compression="zstd")
    return tmp_path / "constant.parquet"


@pytest.mark.parametrize("names", [["b", "a", "b"], []])
def test_a_table_that_travelled_is_the_same(names: list[str]) -> None:
    numbers = pa.array(range(len(names)), pa.int64())
    table = pa.table({"name": pa.array(names, NAMES), "number": numbers}).replace_schema_metadata({b"moeprof": b"{}"})
    arrived = unpacked(packed(table))
    assert arrived.equals(table, check_metadata=True)


def test_a_table_of_several_pieces_arrives_whole() -> None:
    pieces = [pa.table({"name": pa.array([name], NAMES)}) for name in "abc"]
    table = pa.concat_tables(pieces).unify_dictionaries()
    assert unpacked(packed(table))["name"].to_pylist() == ["a", "b", "c"]


def test_rows_that_do_not_fit_are_refused_before_they_are_read(constant: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert constant.stat().st_size < 20_000
    monkeypatch.setattr(inputs, "free_memory", lambda: 2 * ROWS * CELL_BYTES)
    with pytest.raises(ValueError, match=r"its content takes 3\.05 MiB, but 3\.05 MiB of memory are free"):
        read_table(constant)
    monkeypatch.setattr(inputs, "free_memory", lambda: 3 * ROWS * CELL_BYTES)
    assert read_table(constant).num_rows == ROWS


def test_a_table_is_read_from_a_pipe(constant: Path, tmp_path: Path) -> None:
    with fed(tmp_path / "pipe", constant.read_bytes()) as pipe:
        assert read_table(pipe).equals(read_table(constant))


def test_what_is_wrong_with_a_column_is_said_in_plain_words() -> None:
    schema = pa.schema([pa.field("step", pa.int8(), nullable=False), pa.field("layer", NAMES, nullable=False)])
    cases = {
        "column 'step' is of type int64, and not every value is one of int8": {"step": [1, 300], "layer": ["a", "b"]},
        "column 'step' is of type string, and not every value is one of int8": {"step": ["1", "x"], "layer": ["a", "b"]},
        "column 'step' is of type list<item: int64>, and not every value is one of int8": {
            "step": [[1], [2]],
            "layer": ["a", "b"],
        },
        "column 'step' has empty cells": {"step": [1, None], "layer": ["a", "b"]},
        "column 'layer' is missing": {"step": [1, 2]},
    }
    for what, columns in cases.items():
        with pytest.raises(ValueError, match="column") as caught:
            with_columns(pa.table(columns), schema)
        assert str(caught.value) == what
    assert with_columns(pa.table({"step": [1, 2], "layer": ["a", "b"]}), schema).schema == schema


def test_a_column_that_is_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["expert", "expert"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="column 'expert' is twice in it"):
        read_table(tmp_path / "a.parquet")


def test_what_a_file_is_that_cannot_be_read_is_said(constant: Path, tmp_path: Path) -> None:
    whole = constant.read_bytes()
    for content, what in {
        b"": "not a Parquet file",
        b"{}": "not a Parquet file",
        whole[:-1]: "a damaged Parquet file",
        whole[:2000] + bytes(200) + whole[2200:]: "a damaged Parquet file",
    }.items():
        (tmp_path / "file").write_bytes(content)
        with pytest.raises(ValueError, match="Parquet") as caught:
            read_table(tmp_path / "file")
        assert str(caught.value) == what
    with pytest.raises(ValueError, match="a table without the header of moeprof; its columns are step, expert"):
        read_with_header(constant, 1)
