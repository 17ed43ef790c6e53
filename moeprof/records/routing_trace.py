"""The router's decisions of one phase, variant and rank: one row per token and choice, as a Parquet file."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moeprof.records.errors import UsageError
from moeprof.records.files import reason, replacing

SCHEMA = 1
NAMES = pa.dictionary(pa.int32(), pa.string())
COLUMNS = pa.schema(
    [
        pa.field("step", pa.int32(), nullable=False),
        pa.field("sequence", pa.int32(), nullable=False),
        pa.field("position", pa.int32(), nullable=False),
        pa.field("token_id", pa.int32(), nullable=False),
        pa.field("layer", NAMES, nullable=False),
        pa.field("slot", pa.int8(), nullable=False),
        pa.field("expert", pa.int32(), nullable=False),
        pa.field("weight", pa.float32(), nullable=False),
        pa.field("domain", NAMES, nullable=False),
        pa.field("dropped", pa.bool_(), nullable=False),
        pa.field("residency", pa.int8()),
    ]
)
"""`step` counts forward passes of the phase; `slot` is the router's rank of the choice; `weight` its softmax value, before
dropping and renormalising (NaN where unknown); `residency` is 0 miss, 1 hit, 2 hit on a prefetch, null when resident."""


class TraceHeader(BaseModel):
    """What the rows cannot say; kept in the file's metadata."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = SCHEMA
    workload: str
    phase: str
    variant: str
    rank: int = Field(default=0, ge=0)
    num_experts: int = Field(ge=1)
    top_k: int = Field(ge=1)
    layers: list[str]
    forced: bool = False


@dataclass(frozen=True)
class RoutingTrace:
    """Decisions in the order in which they were made, padding left out."""

    header: TraceHeader
    table: pa.Table

    def validate(self) -> "RoutingTrace":
        """Itself; ValueError where the rows contradict the header."""
        for name, limit in (("expert", self.header.num_experts), ("slot", self.header.top_k)):
            values = self.column(name)
            if len(values) and not (values.min() >= 0 and values.max() < limit):
                raise ValueError(f"{name} {values[(values < 0) | (values >= limit)][0]} is outside 0 to {limit - 1}")
        if foreign := set(self.names("layer")) - set(self.header.layers):
            raise ValueError(f"layer {min(foreign)!r} is not among the header's")
        return self

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column of plain values, (rows,)."""
        return np.asarray(self.table[name].to_numpy())

    def codes(self, name: str) -> tuple[npt.NDArray[np.int32], list[str]]:
        """A column of names as (codes (rows,), the name behind each code)."""
        encoded = self.table[name].unify_dictionaries().combine_chunks()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], NAMES)
        return np.asarray(encoded.indices.to_numpy(), np.int32), encoded.dictionary.to_pylist()

    def names(self, name: str) -> list[str]:
        """The distinct names in a column, in order of first appearance."""
        codes, names = self.codes(name)
        first = np.unique(codes, return_index=True)
        return [names[code] for code in first[0][np.argsort(first[1])]]

    def select(self, *, layer: str | None = None, domain: str | None = None) -> "RoutingTrace":
        """The rows of one layer, one domain, or both."""
        keep = np.ones(len(self), bool)
        for name, wanted in (("layer", layer), ("domain", domain)):
            if wanted is not None:
                codes, names = self.codes(name)
                keep &= codes == (names.index(wanted) if wanted in names else -1)
        return RoutingTrace(self.header, self.table.filter(pa.array(keep)))

    @property
    def file_name(self) -> str:
        """Where it lies in a run's `routing/`."""
        return f"{self.header.phase}-{self.header.variant}-rank{self.header.rank}.parquet"

    def write(self, path: Path) -> None:
        """Writes Parquet; the same decisions give the same bytes."""
        metadata = {b"moeprof": self.header.model_dump_json().encode()}
        with replacing(path) as partial:
            pq.write_table(self.table.cast(COLUMNS).replace_schema_metadata(metadata), partial, compression="zstd")

    @classmethod
    def read(cls, path: Path) -> "RoutingTrace":
        """UsageError where the file is missing, damaged, newer than this moeprof, or contradicts itself."""
        try:
            with path.open("rb") as file:
                table = pq.read_table(file)
            document = json.loads((table.schema.metadata or {}).get(b"moeprof", b"null"))
            if not isinstance(document, dict):
                raise ValueError("it has no header of moeprof")
            version = document.get("schema_version", SCHEMA)
            if isinstance(version, int) and version > SCHEMA:
                raise ValueError(f"schema {version} is newer than {SCHEMA}")
            return cls(TraceHeader.model_validate(document), with_columns(table)).validate()
        except (OSError, pa.ArrowException, ValidationError, ValueError) as error:
            raise UsageError(
                f"routing trace {path}: {reason(error)}",
                "Give a run directory, or a file of its routing/ folder, written by this version of moeprof or an older one.",
            ) from error


def with_columns(table: pa.Table) -> pa.Table:
    """The table with known columns only, cast to their types; a nullable column that an older file lacks is null."""
    for column in COLUMNS:
        if column.nullable and column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    if missing := set(COLUMNS.names) - set(table.column_names):
        raise ValueError(f"column {min(missing)!r} is missing")
    return table.select(COLUMNS.names).cast(COLUMNS)


def joined(header: TraceHeader, parts: Iterable[pa.Table]) -> RoutingTrace:
    """One trace of tables recorded in order."""
    tables = list(parts)
    table = pa.concat_tables(tables).unify_dictionaries() if tables else COLUMNS.empty_table()
    return RoutingTrace(header, table.combine_chunks())


def read_traces(folder: Path) -> Iterator[RoutingTrace]:
    """Every trace of a run's `routing/`, in order of file name."""
    for path in sorted(folder.glob("*.parquet")):
        yield RoutingTrace.read(path)
