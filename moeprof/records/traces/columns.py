"""Arrow tables on disk: columns of names, a header in the file's metadata, and tables that match a schema."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moeprof.records.system.files import replacing
from moeprof.records.system.inputs import InputFile, check_memory, parsed_json

NAMES = pa.dictionary(pa.int32(), pa.string())
"""The Arrow type of a column of names."""

CELL_BYTES = 8
"""The most bytes of a cell in memory: a number, or the code of a name."""


def codes(table: pa.Table, name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
    """A column of names as (codes (rows,), the name behind each code)."""
    encoded = table[name].unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], NAMES)
    return np.asarray(encoded.indices.to_numpy(), np.int32), encoded.dictionary.to_pylist()


def with_columns(table: pa.Table, columns: pa.Schema) -> pa.Table:
    """The table with the columns of the schema only, cast to their types; a nullable column that an older file lacks is null."""
    for column in columns:
        if column.nullable and column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    if missing := set(columns.names) - set(table.column_names):
        raise ValueError(f"column {min(missing)!r} is missing")
    return table.select(columns.names).cast(columns)


def write_with_header(path: Path, table: pa.Table, header: str) -> None:
    """Writes Parquet with a JSON header in its metadata; the same rows give the same bytes."""
    with replacing(path) as partial, partial.open("wb") as file:  # pyarrow opens no path that is not UTF-8
        pq.write_table(table.replace_schema_metadata({b"moeprof": header.encode()}), file, compression="zstd")


def read_with_header(file: Path | InputFile, schema_version: int) -> tuple[pa.Table, dict[str, Any]]:
    """Table and header; ValueError if there is no header, or one with a version above `schema_version`."""
    table = read_table(file)
    header = parsed_json((table.schema.metadata or {}).get(b"moeprof", b"null"))
    if not isinstance(header, dict):
        raise ValueError("no header of moeprof in it")
    version = header.get("schema_version", schema_version)
    if isinstance(version, int) and version > schema_version:
        raise ValueError(f"schema {version} is newer than {schema_version}")
    return table, header


def read_table(file: Path | InputFile) -> pa.Table:
    """The rows of a Parquet file; ValueError, before any is read, if they do not fit in the free memory."""
    with InputFile.of(file).opened() as opened:
        parquet = pq.ParquetFile(opened)
        stated = parquet.metadata
        pages = sum(stated.row_group(number).total_byte_size for number in range(stated.num_row_groups))
        check_memory(pages + stated.num_rows * stated.num_columns * CELL_BYTES)
        return parquet.read()


def packed(table: pa.Table) -> bytes:
    """The table as bytes, to send to another process."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())


def unpacked(payload: bytes) -> pa.Table:
    """The table from its bytes, whose memory it shares."""
    with pa.ipc.open_stream(payload) as stream:
        return stream.read_all()
