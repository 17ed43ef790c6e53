"""The router's decisions of one phase, variant and rank: one row per token and choice, as a Parquet file."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moeprof.records.errors import UsageError
from moeprof.records.files import reason
from moeprof.records.traces.columns import NAMES, codes, read_with_header, with_columns, write_with_header

SCHEMA = 1
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
        return codes(self.table, name)

    def names(self, name: str) -> list[str]:
        """The distinct names in a column, in order of first appearance."""
        code_R, names = self.codes(name)
        first = np.unique(code_R, return_index=True)
        return [names[code] for code in first[0][np.argsort(first[1])]]

    def select(self, *, layer: str | None = None, domain: str | None = None) -> "RoutingTrace":
        """The rows of one layer, one domain, or both."""
        keep = np.ones(len(self), bool)
        for name, wanted in (("layer", layer), ("domain", domain)):
            if wanted is not None:
                code_R, names = self.codes(name)
                keep &= code_R == (names.index(wanted) if wanted in names else -1)
        return RoutingTrace(self.header, self.table.filter(pa.array(keep)))

    @property
    def file_name(self) -> str:
        """Where it lies in a run's `routing/`."""
        return f"{self.header.phase}-{self.header.variant}-rank{self.header.rank}.parquet"

    def write(self, path: Path) -> None:
        """Writes Parquet; the same decisions give the same bytes."""
        write_with_header(path, self.table.cast(COLUMNS), self.header.model_dump_json())

    @classmethod
    def read(cls, path: Path) -> "RoutingTrace":
        """UsageError where the file is missing, damaged, newer than this moeprof, or contradicts itself."""
        try:
            table, header = read_with_header(path, SCHEMA)
            return cls(TraceHeader.model_validate(header), with_columns(table, COLUMNS)).validate()
        except (OSError, pa.ArrowException, ValidationError, ValueError) as error:
            raise UsageError(
                f"routing trace {path}: {reason(error)}",
                "Give a run directory, or a file of its routing/ folder, written by this version of moeprof or an older one.",
            ) from error


def joined(header: TraceHeader, parts: Iterable[pa.Table]) -> RoutingTrace:
    """One trace of tables recorded in order."""
    tables = list(parts)
    table = pa.concat_tables(tables).unify_dictionaries() if tables else COLUMNS.empty_table()
    return RoutingTrace(header, table.combine_chunks())


def read_traces(folder: Path) -> Iterator[RoutingTrace]:
    """Every trace of a run's `routing/`, in order of file name."""
    for path in sorted(folder.glob("*.parquet")):
        yield RoutingTrace.read(path)
