"""The collectives of a run as each rank recorded them: one row per collective, rank and destination, as a Parquet file.

Shape suffixes: C collectives, N ranks; in NN the first is the source, the second the destination.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from moeprof.records.arrays import Ints
from moeprof.records.regions import REGIONS
from moeprof.records.system.inputs import reported
from moeprof.records.traces.columns import NAMES, codes, read_with_header, with_columns, write_with_header

SCHEMA = 1
WHOSE = ("phase", "variant", "point")
"""An `op_id` identifies a collective among those with the same cells in these columns."""

ALIKE = ("round", "domain", "step", "layer", "region")
"""Columns in which all ranks agree about a collective."""

TIMES = ("start_ns", "wait_ns", "end_ns")
NAMED = (*WHOSE, "domain", "layer", "region")
TYPES = dict.fromkeys(("bytes", *TIMES), pa.int64()) | dict.fromkeys(NAMED, NAMES)
COLUMNS = pa.schema(
    [
        pa.field(name, TYPES.get(name, pa.int32()), nullable=False)
        for name in (
            *("variant", "point", "round", "phase", "domain", "step", "layer", "rank", "op_id", "region"),
            *("source", "destination", "bytes", *TIMES),
        )
    ]
)
"""`op_id` counts the collectives of a phase, variant and point; it is the same on every rank. `rank` recorded the row and sent the
bytes, so it equals `source`. The times are from the rank's own clock: when it started the collective, when it began to wait for it,
and when the collective was done, which may be before the wait if the rank had other work."""


@dataclass(frozen=True, eq=False)
class Collectives:
    """The collectives of one phase, variant and point, in order; every rank takes part in each."""

    phase: str
    variant: str
    point: str
    domains: Sequence[str]
    """The domain of every collective; `layers` and `regions` are likewise."""
    layers: Sequence[str]
    regions: Sequence[str]
    round_C: Ints
    step_C: Ints
    bytes_CNN: Ints
    start_CN: Ints
    wait_CN: Ints
    end_CN: Ints


@dataclass(frozen=True)
class Traffic:
    """The rows of all ranks, in any order."""

    table: pa.Table

    @cached_property
    def collectives(self) -> list[Collectives]:
        """One for each phase, variant and point; ValueError unless every rank sent to every rank in each collective."""
        groups = self.table.group_by(list(WHOSE), use_threads=False).aggregate([]).to_pylist()
        return [collectives_of(self.table, group) for group in groups]

    def of(self, phase: str, variant: str, point: str = "") -> Collectives | None:
        """The collectives of a phase and variant at a point, or None if there are none."""
        wanted = (phase, variant, point)
        return next((one for one in self.collectives if (one.phase, one.variant, one.point) == wanted), None)

    def write(self, path: Path) -> None:
        """Writes Parquet; the same rows give the same bytes."""
        write_with_header(path, self.table.cast(COLUMNS), json.dumps({"schema_version": SCHEMA}))

    @classmethod
    def read(cls, path: Path) -> "Traffic":
        """UsageError if the file is missing, damaged, inconsistent, or written by a newer moeprof."""
        with reported(
            f"traffic {path}",
            "Give a run directory from this version of moeprof or an older one, or repeat the run.",
        ):
            traffic = joined([with_columns(read_with_header(path, SCHEMA)[0], COLUMNS)])
            traffic.collectives  # noqa: B018  checks every row
            return traffic


def joined(parts: Iterable[pa.Table]) -> Traffic:
    """The traffic of several ranks, phases or variants in one table."""
    return Traffic(pa.concat_tables([COLUMNS.empty_table(), *parts]).unify_dictionaries().combine_chunks())


def collectives_of(table: pa.Table, whose: dict[str, str]) -> Collectives:
    """The collectives of one phase, variant and point; ValueError if rows of a rank are missing, or ranks disagree."""
    for name, value in whose.items():
        table = table.filter(pc.equal(table[name], value))
    table = table.sort_by([(name, "ascending") for name in ("op_id", "rank", "destination")])
    values = {name: codes(table, name)[0] if name in NAMED else table[name].to_numpy() for name in COLUMNS.names}
    num_ranks, num_ops = (len(np.unique(values[name])) for name in ("rank", "op_id"))
    if table.num_rows != num_ops * num_ranks**2:
        raise ValueError(f"{table.num_rows} rows are not {num_ops} collectives between {num_ranks} ranks")
    cubes = {name: column.reshape(num_ops, num_ranks, num_ranks).astype(np.int64) for name, column in values.items()}
    check(cubes, num_ranks)
    first = table.take(pa.array(np.arange(num_ops) * num_ranks**2))
    domains, layers, regions = (first[name].to_pylist() for name in ("domain", "layer", "region"))
    if foreign := set(regions) - set(REGIONS):
        raise ValueError(f"unknown region {min(foreign)!r}")
    return Collectives(
        **whose,
        domains=domains,
        layers=layers,
        regions=regions,
        round_C=cubes["round"][:, 0, 0],
        step_C=cubes["step"][:, 0, 0],
        bytes_CNN=cubes["bytes"],
        start_CN=cubes["start_ns"][:, :, 0],
        wait_CN=cubes["wait_ns"][:, :, 0],
        end_CN=cubes["end_ns"][:, :, 0],
    )


def check(cubes: dict[str, Ints], num_ranks: int) -> None:
    """ValueError unless the columns, each (C, N, N), hold a consistent record of every rank for every collective."""
    ranks_N = np.arange(num_ranks)
    expected = {
        "rank": ranks_N[:, None],
        "source": ranks_N[:, None],
        "destination": ranks_N,
        "op_id": cubes["op_id"][:, :1, :1],
    }
    for name, cube in expected.items():
        if not (cubes[name] == cube).all():
            raise ValueError(f"{name}: a collective is not between all ranks 0 to {num_ranks - 1}")
    for name in ALIKE:
        if not (cubes[name] == cubes[name][:, :1, :1]).all():
            raise ValueError(f"ranks disagree on the {name} of a collective")
    for name in TIMES:
        if not (cubes[name] == cubes[name][:, :, :1]).all():
            raise ValueError(f"a rank has two values of {name} for one collective")
    for name in ("bytes", "start_ns"):
        if (cubes[name] < 0).any():
            raise ValueError(f"{name}: a value is negative")
    for name in ("wait_ns", "end_ns"):
        if (cubes[name] < cubes["start_ns"]).any():
            raise ValueError(f"{name}: before the start of the collective")
