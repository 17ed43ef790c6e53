"""A row of `metrics.csv` as it is read: its key, typed once, and its value."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypedDict, Unpack

from moeprof.records.metrics.point import parse_point


class Address(TypedDict, total=False):
    """Key cells by name, as keyword arguments of rows and lookups."""

    workload: str
    phase: str
    domain: str
    variant: str
    point: str
    rank: str
    layer: str
    region: str
    category: str


class RowKey(NamedTuple):
    """The key columns of `metrics.csv`, which identify a number; an empty cell means over all of them."""

    workload: str
    phase: str
    domain: str
    variant: str
    point: str
    rank: str
    layer: str
    region: str
    category: str
    metric: str


EMPTY = RowKey(*[""] * len(RowKey._fields))


def row_key(metric: str, **cells: Unpack[Address]) -> RowKey:
    """The key with these cells; those that are not named are empty."""
    return EMPTY._replace(**cells, metric=metric)


@dataclass(frozen=True)
class RecordedRow:
    """One number of a run that was read back; unit and kind are those that the run recorded."""

    key: RowKey
    unit: str
    kind: str
    value: float

    @cached_property
    def swept(self) -> Mapping[str, str]:
        """The cell `point`, parsed: `{"policy": "lru", "slots": "16"}`."""
        return parse_point(self.key.point)
