"""Loads read back as they were written, and a file in which a use contradicts itself is refused."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.traces.expert_loads import COLUMNS, ExpertLoads, joined

DESIGN = {"layer", "step", "expert", "hit", "victim", "bytes", "start_ns", "end_ns"}


def use(**cells: Any) -> dict[str, Any]:
    whose = {
        "variant": "dynamic+buffered",
        "point": "",
        "phase": "decode",
        "domain": "code",
        "step": 0,
        "layer": "1",
        "rank": 0,
    }
    return whose | {"expert": 3, "hit": False, "victim": -1, "bytes": 4096, "start_ns": 5, "end_ns": 9} | cells


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=COLUMNS)


def written(path: Path, *rows: dict[str, Any], header: object = {"schema_version": 1}) -> Path:
    pq.write_table(table(*rows).replace_schema_metadata({b"moeprof": json.dumps(header).encode()}), path)
    return path


HIT = use(hit=True, bytes=0, start_ns=0, end_ns=0)


def test_the_columns_are_those_of_the_design_and_whose_they_are() -> None:
    assert set(COLUMNS.names) >= DESIGN
    assert not any(column.nullable for column in COLUMNS)


def test_what_is_written_reads_back_and_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    loads = joined([table(use(), HIT), table(use(victim=2, layer="3"))])
    loads.write(tmp_path / "a.parquet")
    loads.write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert ExpertLoads.read(tmp_path / "a.parquet").table.to_pylist() == [use(), HIT, use(victim=2, layer="3")]


def test_rows_are_found_by_their_cells_in_the_order_of_use() -> None:
    loads = joined([table(use(), use(layer="3", expert=1), use(step=1, expert=5), use(layer="3", rank=1))])
    assert [row["expert"] for row in loads.of(layer="1").table.to_pylist()] == [3, 5]
    assert {key: len(own) for key, own in loads.groups("layer", "rank")} == {("1", 0): 2, ("3", 0): 1, ("3", 1): 1}


@pytest.mark.parametrize(
    ("row", "what"),
    [
        (use(expert=-1), "an expert number is negative"),
        (use(victim=-2), "an expert number is negative"),
        (HIT | {"victim": 2}, "a hit has a victim"),
        (use(bytes=0), "a hit has bytes, or a miss has none"),
        (HIT | {"bytes": 4096}, "a hit has bytes, or a miss has none"),
        (use(bytes=-4096), "a hit has bytes, or a miss has none"),
        (use(end_ns=4), "a load ends before it starts"),
    ],
)
def test_a_use_that_cannot_be_is_refused(tmp_path: Path, row: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError) as caught:
        ExpertLoads.read(written(tmp_path / "loads.parquet", use(), row))
    assert caught.value.what == f"expert loads {tmp_path / 'loads.parquet'}: {what}"


def test_a_newer_file_a_damaged_one_and_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="schema 2 is newer than 1"):
        ExpertLoads.read(written(tmp_path / "newer.parquet", use(), header={"schema_version": 2}))
    (tmp_path / "damaged.parquet").write_bytes(b"PAR1 no more")
    for name in ("damaged.parquet", "none.parquet"):
        with pytest.raises(UsageError, match=rf"expert loads .*{name}: "):
            ExpertLoads.read(tmp_path / name)
