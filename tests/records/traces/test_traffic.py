"""Traffic reads back as it was written, and a file in which a rank's word is missing or doubtful is refused."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.traces.traffic import COLUMNS, Traffic, joined
from tests.records.traces.traffics import Times, rows_of, table_of, traffic_of

DESIGN = "variant, point, round, phase, step, layer, rank, op_id, region, source, destination, bytes, start_ns, end_ns"
TWO_RANKS: tuple[list[list[int]], list[Times]] = [[8, 24], [40, 56]], [(100, 120, 150), (110, 110, 160)]


def written(path: Path, rows: list[dict[str, Any]], header: object = {"schema_version": 1}) -> Path:
    """A Parquet file that did not come through Traffic.write."""
    metadata = {b"moeprof": json.dumps(header).encode()}
    pq.write_table(table_of(rows).replace_schema_metadata(metadata), path)
    return path


def fault(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        Traffic.read(path)
    assert str(caught.value).count("\n") == 1
    assert caught.value.what.startswith(f"traffic {path}: ")
    return caught.value.what.removeprefix(f"traffic {path}: ")


def test_the_columns_are_those_of_the_design_and_two_more() -> None:
    assert [name for name in COLUMNS.names if name not in ("domain", "wait_ns")] == DESIGN.split(", ")
    assert not any(column.nullable for column in COLUMNS)


def test_what_is_written_reads_back_and_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    traffic = traffic_of(rows_of(*TWO_RANKS), rows_of(*TWO_RANKS, op_id=1, region="a2a_combine", layer="3"))
    traffic.write(tmp_path / "a.parquet")
    traffic.write(tmp_path / "b.parquet")
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    assert Traffic.read(tmp_path / "a.parquet").table.to_pylist() == traffic.table.to_pylist()


def test_collectives_are_matrices_in_order_whatever_the_order_of_the_rows() -> None:
    first = rows_of(*TWO_RANKS, step=4, round=1)
    second = rows_of(
        [[1, 2], [3, 4]], [(200, 200, 210), (200, 205, 220)], op_id=1, region="a2a_combine", layer="3", domain="code"
    )
    rows = [*second, *first]
    random.Random(3).shuffle(rows)
    found = traffic_of(rows).of("score", "static")
    assert found is not None
    assert (found.regions, found.layers, found.domains) == (["a2a_dispatch", "a2a_combine"], ["1", "3"], ["prose", "code"])
    assert (found.round_C.tolist(), found.step_C.tolist()) == ([1, 0], [4, 0])
    assert found.bytes_CNN.tolist() == [[[8, 24], [40, 56]], [[1, 2], [3, 4]]]
    assert found.start_CN.tolist() == [[100, 110], [200, 200]]
    assert found.wait_CN.tolist() == [[120, 110], [200, 205]]
    assert found.end_CN.tolist() == [[150, 160], [210, 220]]


def test_phases_variants_and_points_are_kept_apart() -> None:
    parts = [rows_of(*TWO_RANKS), rows_of(*TWO_RANKS, variant="dynamic"), rows_of(*TWO_RANKS, point="batch=8")]
    traffic = traffic_of(*parts, rows_of(*TWO_RANKS, phase="decode"))
    whose = [(one.phase, one.variant, one.point) for one in traffic.collectives]
    assert whose == [
        ("score", "static", ""),
        ("score", "dynamic", ""),
        ("score", "static", "batch=8"),
        ("decode", "static", ""),
    ]
    assert all(len(one.regions) == 1 for one in traffic.collectives)
    assert traffic.of("encode", "static") is None


def test_no_rows_are_no_collectives() -> None:
    assert joined([]).collectives == []


@given(st.integers(1, 5), st.integers(1, 6), st.data())
def test_every_row_finds_its_place(num_ranks: int, num_ops: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 2**40), min_size=num_ops * num_ranks**2, max_size=num_ops * num_ranks**2))
    bytes_CNN = np.array(sizes).reshape(num_ops, num_ranks, num_ranks)
    ops = data.draw(st.lists(st.integers(0, 10**6), min_size=num_ops, max_size=num_ops, unique=True))
    rows = [
        row
        for op_id, bytes_NN in zip(sorted(ops), bytes_CNN.tolist(), strict=True)
        for row in rows_of(bytes_NN, [(rank, rank + 1, rank + 2) for rank in range(num_ranks)], op_id=op_id)
    ]
    (found,) = traffic_of(data.draw(st.permutations(rows))).collectives
    assert (found.bytes_CNN == bytes_CNN).all()
    assert (found.start_CN == np.arange(num_ranks)).all()


# Refused


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"source": 0}, "source: a collective is not between all ranks 0 to 1"),
        ({"rank": 7}, "8 rows are not 2 collectives between 3 ranks"),
        ({"destination": 1}, "destination: a collective is not between all ranks"),
        ({"layer": "3"}, "ranks disagree on the layer of a collective"),
        ({"region": "a2a_combine"}, "ranks disagree on the region of a collective"),
        ({"step": 5}, "ranks disagree on the step of a collective"),
        ({"round": 5}, "ranks disagree on the round of a collective"),
        ({"domain": "code"}, "ranks disagree on the domain of a collective"),
        ({"end_ns": 161}, "a rank has two values of end_ns for one collective"),
        ({"bytes": -1}, "bytes: a value is negative"),
    ],
)
def test_a_row_that_contradicts_the_others_is_refused(changed: dict[str, Any], expected: str, tmp_path: Path) -> None:
    rows = [*rows_of(*TWO_RANKS), *rows_of(*TWO_RANKS, op_id=1)]
    rows[6] |= changed  # from rank 1 to rank 0 in the second collective
    assert expected in fault(written(tmp_path / "traffic.parquet", rows))


def test_a_missing_row_is_refused(tmp_path: Path) -> None:
    told = fault(written(tmp_path / "traffic.parquet", rows_of(*TWO_RANKS)[:-1]))
    assert told == "3 rows are not 1 collectives between 2 ranks"


def test_ranks_that_do_not_count_from_zero_are_refused(tmp_path: Path) -> None:
    """A huge rank must not become a huge matrix either."""
    row = rows_of([[8]], [(1, 2, 3)], rank=2**31 - 1, source=2**31 - 1, destination=2**31 - 1)
    assert "ranks 0 to 0" in fault(written(tmp_path / "traffic.parquet", row))


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ((5, 4, 6), "wait_ns: before the start of the collective"),
        ((5, 6, 4), "end_ns: before the start of the collective"),
        ((-1, 2, 3), "start_ns: a value is negative"),
    ],
)
def test_times_that_run_backwards_are_refused(times: Times, expected: str, tmp_path: Path) -> None:
    assert fault(written(tmp_path / "traffic.parquet", rows_of([[8]], [times]))) == expected


def test_a_collective_may_be_done_before_anybody_waits_for_it(tmp_path: Path) -> None:
    read = Traffic.read(written(tmp_path / "traffic.parquet", rows_of([[8]], [(5, 9, 7)])))
    assert read.collectives[0].end_CN.tolist() == [[7]]


def test_a_region_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    assert fault(written(tmp_path / "traffic.parquet", rows_of(*TWO_RANKS, region="a2a"))) == "unknown region 'a2a'"


def test_a_foreign_damaged_newer_or_missing_file_is_refused(tmp_path: Path) -> None:
    rows = rows_of(*TWO_RANKS)
    assert fault(written(tmp_path / "a.parquet", rows, None)).startswith(
        "a table without the header of moeprof; its columns are "
    )
    assert fault(written(tmp_path / "b.parquet", rows, {"schema_version": 2})) == "schema 2 is newer than 1"
    pq.write_table(table_of(rows).drop_columns(["bytes"]).replace_schema_metadata({b"moeprof": b"{}"}), tmp_path / "c.parquet")
    assert fault(tmp_path / "c.parquet") == "column 'bytes' is missing"
    (tmp_path / "d.parquet").write_bytes(b"PAR1 not really")
    assert fault(tmp_path / "d.parquet")
    assert fault(tmp_path / "e.parquet") == "no such file or directory"


def test_a_column_with_holes_is_refused(tmp_path: Path) -> None:
    table = table_of(rows_of(*TWO_RANKS))
    holes = pa.array([8, None, 40, 56], pa.int64())
    loose = table.set_column(table.column_names.index("bytes"), pa.field("bytes", pa.int64()), holes)
    pq.write_table(loose.replace_schema_metadata({b"moeprof": b'{"schema_version": 1}'}), tmp_path / "a.parquet")
    assert fault(tmp_path / "a.parquet") == "column 'bytes' has empty cells"
