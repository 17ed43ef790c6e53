"""Arrow tables on disk: columns of names, a header in the file's metadata, and tables that match a schema.

Their functions raise ValueError in plain words, never an error of Arrow; only a lack of memory stays what it is.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from moeprof.records.system.files import replacing
from moeprof.records.system.inputs import InputFile, check_memory
from moeprof.records.system.parsing import parsed_json

NAMES = pa.dictionary(pa.int32(), pa.string())
"""The Arrow type of a column of names."""

MAGIC = b"PAR1"
"""The first bytes of a Parquet file."""

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
    return pa.table([cast(table, column) for column in columns], schema=columns)


def cast(table: pa.Table, column: pa.Field) -> pa.ChunkedArray:
    """One column in the type of a schema; ValueError if it holds values that the type has not."""
    found = table[column.name]
    if found.null_count and not column.nullable:
        raise ValueError(f"column {column.name!r} has empty cells")
    with readable(f"column {column.name!r} is of type {found.type}, and not every value is one of {column.type}"):
        return found.cast(column.type)


@contextmanager
def readable(what: str) -> Iterator[None]:
    """Turns an error of Arrow into a ValueError; one of the system stays."""
    try:
        yield
    except pa.ArrowMemoryError:
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise
        raise ValueError(what) from error


def write_with_header(path: Path, table: pa.Table, header: str) -> None:
    """Writes Parquet with a JSON header in its metadata; the same rows give the same bytes."""
    with replacing(path) as partial, partial.open("wb") as file:  # pyarrow opens no path that is not UTF-8
        pq.write_table(table.replace_schema_metadata({b"moeprof": header.encode()}), file, compression="zstd")


def read_with_header(file: Path | InputFile, schema_version: int) -> tuple[pa.Table, dict[str, Any]]:
    """Table and header; ValueError if there is no header, or one with a version above `schema_version`."""
    table = read_table(file)
    header = parsed_json((table.schema.metadata or {}).get(b"moeprof", b"null"))
    if not isinstance(header, dict):
        raise ValueError(f"a table without the header of moeprof; its columns are {', '.join(table.column_names[:8])}")
    version = header.get("schema_version", schema_version)
    if isinstance(version, int) and version > schema_version:
        raise ValueError(f"schema {version} is newer than {schema_version}")
    return table, header


def read_table(file: Path | InputFile) -> pa.Table:
    """The rows of a Parquet file; ValueError, before any is read, if they do not fit in the free memory."""
    source = InputFile.of(file)
    what = "a damaged Parquet file" if source.head.startswith(MAGIC) else "not a Parquet file"
    with source.opened() as opened, readable(what):
        parquet = pq.ParquetFile(opened if opened.seekable() else BytesIO(source.read()))
        stated = parquet.metadata
        pages = sum(stated.row_group(number).total_byte_size for number in range(stated.num_row_groups))
        check_memory(pages + stated.num_rows * stated.num_columns * CELL_BYTES)
        names = parquet.schema_arrow.names
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"column {twice[0]!r} is twice in it")
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
