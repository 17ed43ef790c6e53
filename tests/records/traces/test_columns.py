"""What another process packed is the same table here."""

import pyarrow as pa
import pytest

from moeprof.records.traces.columns import NAMES, packed, unpacked


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
