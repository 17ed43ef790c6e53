"""What another process packed is the same table here; Parquet is read if its rows fit in memory, which a small file may not show."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeprof.records.system import inputs
from moeprof.records.traces.columns import CELL_BYTES, NAMES, packed, read_table, unpacked
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
