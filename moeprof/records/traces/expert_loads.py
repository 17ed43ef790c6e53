"""The log of expert loads: every use of an expert in a buffered store, in order, as a Parquet file.

Shape suffix: N uses.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from moeprof.records.system.inputs import reported
from moeprof.records.traces.columns import NAMES, read_with_header, with_columns, write_with_header

SCHEMA = 1
NAMED = ("variant", "point", "phase", "domain", "layer")
TYPES = dict.fromkeys(NAMED, NAMES) | dict.fromkeys(("bytes", "start_ns", "end_ns"), pa.int64()) | {"hit": pa.bool_()}
COLUMNS = pa.schema(
    [
        pa.field(name, TYPES.get(name, pa.int32()), nullable=False)
        for name in (
            *("variant", "point", "phase", "domain", "step", "layer", "rank"),
            *("expert", "hit", "victim", "bytes", "start_ns", "end_ns"),
        )
    ]
)
"""`victim` is the expert that was evicted, -1 if none was. `bytes` were copied between `start_ns` and `end_ns` of the rank's own
clock; all three are 0 for a hit."""


class ExpertUse(NamedTuple):
    """One use of an expert in a step of a layer; uses are in the order in which the policy served them."""

    expert: int
    """The number of the expert in the model, whatever its placement."""
    hit: bool
    victim: int
    num_bytes: int
    start_ns: int
    end_ns: int


class UnitEvent(NamedTuple):
    """What an offloading store did with an expert at a precision."""

    layer: str
    precision: str
    event: str
    """`hit`, `foreseen` (the first use after a prefetch), `demand`, `skip`, `far` (computed elsewhere), or `prefetch`, which is no
    use."""
    num_bytes: int


class Movement(NamedTuple):
    """An expert that was moved, at a precision."""

    layer: str
    precision: str
    reason: str
    """`demand`: a step waits for it; `prefetch`: into a slot before a step uses it; `preload`: into host memory only."""
    tier: str
    """Where it was: `weights`, `host` or `file`."""
    num_bytes: int


class LayerLoads(NamedTuple):
    """The expert loads of one step of a buffered layer."""

    uses: Sequence[ExpertUse]
    stall_ns: int
    """How long the layer waited for experts."""
    span_ns: int
    """The time from when the step's experts were known to the end of the last one's computation."""
    events: Sequence[UnitEvent] = ()
    """What an offloading store did; empty for other stores."""
    movements: Sequence[Movement] = ()
    """What was moved since the last such step of any layer, also for other layers."""


@dataclass(frozen=True)
class ExpertLoads:
    """The uses of one or more buffered variants; those of each phase, variant, rank and layer are in order."""

    table: pa.Table

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column of plain values, (N,)."""
        return np.asarray(self.table[name].to_numpy())

    def of(self, **wanted: str | int) -> "ExpertLoads":
        """The rows that have these cells."""
        table = self.table
        for name, value in wanted.items():
            table = table.filter(pc.equal(table[name], value))
        return ExpertLoads(table)

    def groups(self, *names: str) -> Iterator[tuple[tuple[Any, ...], "ExpertLoads"]]:
        """The rows by their cells in these columns, in order of first appearance."""
        for cells in self.table.group_by(list(names), use_threads=False).aggregate([]).to_pylist():
            yield tuple(cells[name] for name in names), self.of(**cells)

    def write(self, path: Path) -> None:
        """Writes Parquet; the same rows give the same bytes."""
        write_with_header(path, self.table.cast(COLUMNS), json.dumps({"schema_version": SCHEMA}))

    @classmethod
    def read(cls, path: Path) -> "ExpertLoads":
        """UsageError if the file is missing, damaged, inconsistent, or written by a newer moeprof."""
        with reported(
            f"expert loads {path}",
            "Give a run directory from this version of moeprof or an older one, or repeat the run.",
        ):
            return joined([with_columns(read_with_header(path, SCHEMA)[0], COLUMNS)]).validate()

    def validate(self) -> "ExpertLoads":
        """Returns itself; ValueError if a row is impossible."""
        hit_N, bytes_N = self.column("hit"), self.column("bytes")
        if (self.column("expert") < 0).any() or (self.column("victim") < -1).any():
            raise ValueError("an expert number is negative")
        if (hit_N & (self.column("victim") >= 0)).any():
            raise ValueError("a hit has a victim")
        if (hit_N != (bytes_N == 0)).any() or (bytes_N < 0).any():
            raise ValueError("a hit has bytes, or a miss has none")
        if (self.column("end_ns") < self.column("start_ns")).any():
            raise ValueError("a load ends before it starts")
        return self


def joined(parts: Iterable[pa.Table]) -> ExpertLoads:
    """The loads of several ranks, phases or variants in one table."""
    return ExpertLoads(pa.concat_tables([COLUMNS.empty_table(), *parts]).unify_dictionaries().combine_chunks())
