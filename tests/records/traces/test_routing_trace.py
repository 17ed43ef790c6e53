"""A routing trace is exact, reproducible to the byte, and refused where it contradicts itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.traces.routing_trace import COLUMNS, RoutingTrace, TraceHeader, joined, read_traces

HEADER: dict[str, Any] = {
    "workload": "lm",
    "phase": "score",
    "variant": "static",
    "num_experts": 4,
    "top_k": 2,
    "layers": ["1", "3"],
}
ROWS: dict[str, list[Any]] = {
    "step": [0, 0, 0, 0],
    "sequence": [0, 0, 1, 1],
    "position": [0, 0, 0, 0],
    "token_id": [7, 7, 9, 9],
    "layer": ["1", "1", "3", "3"],
    "slot": [0, 1, 0, 1],
    "expert": [2, 3, 0, 3],
    "weight": [0.5, 0.25, 0.625, 0.125],
    "domain": ["wiki", "wiki", "code", "code"],
    "dropped": [False, True, False, False],
    "residency": [None, None, 0, 2],
}


def loose_table(**changes: Any) -> pa.Table:
    """The rows as another tool might write them: every column nullable, names as plain strings."""
    types = {column.name: pa.string() if pa.types.is_dictionary(column.type) else column.type for column in COLUMNS}
    arrays = {name: pa.array(values, types[name]) for name, values in (ROWS | changes).items() if values is not None}
    return pa.table(arrays)


def trace(**changes: Any) -> RoutingTrace:
    return RoutingTrace(TraceHeader(**HEADER), loose_table(**changes).cast(COLUMNS))


def write_foreign(path: Path, table: pa.Table, header: object = HEADER) -> Path:
    """A Parquet file that did not come through RoutingTrace.write."""
    metadata = {b"moeprof": header if isinstance(header, bytes) else json.dumps(header).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def fault(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        RoutingTrace.read(path)
    assert str(caught.value).count("\n") == 1
    assert caught.value.what.startswith(f"routing trace {path}: ")
    return caught.value.what.removeprefix(f"routing trace {path}: ")


def test_the_columns_are_those_of_the_design() -> None:
    design = "step, sequence, position, token_id, layer, slot, expert, weight, domain, dropped, residency"
    assert design.split(", ") == COLUMNS.names


def test_a_trace_comes_back_from_its_file(tmp_path: Path) -> None:
    written = trace()
    written.write(tmp_path / "t.parquet")
    read = RoutingTrace.read(tmp_path / "t.parquet")
    assert read.header == written.header
    assert read.table.to_pydict() == ROWS
    assert len(read) == 4


def test_the_same_decisions_give_the_same_bytes_written_twice_and_read_between(tmp_path: Path) -> None:
    trace().write(tmp_path / "a")
    trace().write(tmp_path / "b")
    RoutingTrace.read(tmp_path / "a").write(tmp_path / "c")
    joined(trace().header, [trace().table.slice(0, 2), trace().table.slice(2)]).write(tmp_path / "d")
    assert len({(tmp_path / name).read_bytes() for name in "abcd"}) == 1


def test_an_empty_trace_comes_back_too(tmp_path: Path) -> None:
    joined(trace().header, []).write(tmp_path / "t.parquet")
    read = RoutingTrace.read(tmp_path / "t.parquet")
    assert (len(read), read.names("layer"), read.column("expert").tolist()) == (0, [], [])


def test_columns_are_read_as_arrays_and_names_as_codes() -> None:
    assert trace().column("expert").tolist() == [2, 3, 0, 3]
    codes, names = trace().codes("layer")
    assert [names[code] for code in codes] == ["1", "1", "3", "3"]
    assert trace().names("domain") == ["wiki", "code"]
    np.testing.assert_array_equal(trace().column("residency"), [np.nan, np.nan, 0, 2])


def test_rows_are_selected_by_layer_and_domain() -> None:
    assert trace().select(layer="3").column("expert").tolist() == [0, 3]
    assert trace().select(domain="wiki").column("expert").tolist() == [2, 3]
    assert trace().select(layer="3", domain="code").names("layer") == ["3"]
    assert len(trace().select(layer="3", domain="wiki")) == len(trace().select(layer="9")) == 0


def test_names_of_parts_are_joined_whatever_their_codes() -> None:
    both = joined(trace().header, [trace().select(layer="3").table, trace().select(layer="1").table])
    assert both.names("layer") == ["3", "1"]
    assert both.select(layer="1").column("expert").tolist() == [2, 3]


def test_a_file_is_named_by_phase_variant_and_rank() -> None:
    header = TraceHeader(**HEADER | {"phase": "decode", "variant": "dynamic+loop", "rank": 3})
    assert RoutingTrace(header, COLUMNS.empty_table()).file_name == "decode-dynamic+loop-rank3.parquet"


def test_every_trace_of_a_folder_is_read_by_name(tmp_path: Path) -> None:
    for phase in ("score", "decode"):
        part = RoutingTrace(TraceHeader(**HEADER | {"phase": phase}), trace().table)
        part.write(tmp_path / part.file_name)
    (tmp_path / "notes.txt").write_text("other")
    assert [part.header.phase for part in read_traces(tmp_path)] == ["decode", "score"]
    assert list(read_traces(tmp_path / "none")) == []


def test_an_older_file_without_residency_is_read_as_unknown(tmp_path: Path) -> None:
    read = RoutingTrace.read(write_foreign(tmp_path / "t", loose_table(residency=None)))
    assert read.table["residency"].to_pylist() == [None] * 4
    assert read.table.schema.equals(COLUMNS)


def test_columns_in_another_order_and_of_other_types_are_read_by_name(tmp_path: Path) -> None:
    table = loose_table().select(sorted(ROWS)).append_column("comment", pa.array(["x"] * 4))
    table = table.set_column(table.schema.get_field_index("expert"), "expert", pa.array(ROWS["expert"], pa.int64()))
    assert RoutingTrace.read(write_foreign(tmp_path / "t", table)).table.to_pydict() == ROWS


def test_a_missing_file_and_a_folder_are_no_trace(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "none.parquet").lower()
    trace().write(tmp_path / "t.parquet")
    fault(tmp_path)


@pytest.mark.parametrize("keep", [0, 3, 100, -4, -1])
def test_a_file_that_was_cut_off_is_damaged(tmp_path: Path, keep: int) -> None:
    trace().write(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[:keep])
    fault(tmp_path / "t.parquet")


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    assert fault(write_foreign(tmp_path / "t", loose_table(weight=None))) == "column 'weight' is missing"


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"expert": [2, 4, 0, 3]}, "expert 4 is outside 0 to 3"),
        ({"expert": [2, -1, 0, 3]}, "expert -1 is outside 0 to 3"),
        ({"slot": [0, 2, 0, 1]}, "slot 2 is outside 0 to 1"),
        ({"layer": ["1", "1", "5", "3"]}, "layer '5' is not in the header"),
        ({"expert": [2, None, 0, 3]}, "column 'expert' has empty cells"),
        ({"domain": ["wiki", None, "code", "code"]}, "column 'domain' has empty cells"),
    ],
)
def test_rows_that_contradict_the_header_are_refused(tmp_path: Path, changes: dict[str, Any], what: str) -> None:
    assert fault(write_foreign(tmp_path / "t", loose_table(**changes))) == what


@pytest.mark.parametrize("name", ["", "../x", "a\n::warning::b", "\x1b[31m", "a" * 65])
def test_a_domain_that_cannot_be_a_name_is_refused(tmp_path: Path, name: str) -> None:
    what = fault(write_foreign(tmp_path / "t", loose_table(domain=["wiki", name, "code", "code"])))
    assert f"{name!r} is not a valid name" in what


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    assert fault(write_foreign(tmp_path / "t", loose_table(), HEADER | {"schema_version": 2})) == "schema 2 is newer than 1"


def test_an_older_header_without_a_version_is_read(tmp_path: Path) -> None:
    assert RoutingTrace.read(write_foreign(tmp_path / "t", loose_table())).header.schema_version == 1


@pytest.mark.parametrize(
    "header", [b"", b"{", b"[]", b"3", b"\xff", HEADER | {"schema_version": "x"}, HEADER | {"schema_version": None}]
)
def test_a_header_that_is_no_header_is_refused(tmp_path: Path, header: object) -> None:
    fault(write_foreign(tmp_path / "t", loose_table(), header))


@pytest.mark.parametrize("change", [{"num_experts": 0}, {"top_k": "2"}, {"rank": -1}, {"colour": "red"}])
def test_a_wrong_key_of_the_header_is_named(tmp_path: Path, change: dict[str, object]) -> None:
    assert next(iter(change)) in fault(write_foreign(tmp_path / "t", loose_table(), HEADER | change))


def test_a_parquet_file_of_another_tool_is_no_trace(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "t.parquet")
    assert "moeprof" in fault(tmp_path / "t.parquet").lower()
