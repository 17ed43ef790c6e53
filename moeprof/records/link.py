"""How long a message takes from one rank to another where nothing else goes on: measured once per machine, and kept."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from moeprof.records.arrays import Floats, Ints
from moeprof.records.files import cache_folder, replacing

SCHEMA = 1
WITHIN, BETWEEN = "within a machine", "between machines"
"""The two kinds of links: ranks share a machine, or they do not."""


class Link(BaseModel):
    """The shortest time of a message, by its size."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = SCHEMA
    about: dict[str, str] = {}
    """Machines, backend and software that it was measured with."""
    sizes_bytes: list[int]
    """Ascending."""
    times_ns: list[float]

    @model_validator(mode="after")
    def plausible(self) -> "Link":
        """ValueError where the two lists are no curve."""
        sizes, times = self.sizes_bytes, self.times_ns
        if not sizes or len(sizes) != len(times):
            raise ValueError("there is not one time for every size")
        if sizes[0] < 1 or any(after <= before for before, after in pairwise(sizes)):
            raise ValueError("sizes do not ascend from at least 1")
        if not all(0 < time < float("inf") for time in times):
            raise ValueError("a time is not above 0")
        if self.schema_version != SCHEMA:
            raise ValueError(f"schema {self.schema_version} is not {SCHEMA}")
        return self

    @property
    def latency_ns(self) -> float:
        """Of the smallest message."""
        return min(self.times_ns)

    @property
    def bandwidths(self) -> list[float]:
        """Bytes per second at every size."""
        return [size * 1e9 / time for size, time in zip(self.sizes_bytes, self.times_ns, strict=True)]

    def time_ns(self, size_bytes: Ints) -> Floats:
        """The least that messages of these sizes take; nothing takes no time, and no message more than a larger one.

        Between two measured sizes it is a line, above all of them the largest one's bandwidth.
        """
        times = np.minimum.accumulate(np.array(self.times_ns)[::-1])[::-1]
        inside = np.interp(size_bytes, self.sizes_bytes, times)
        above = np.maximum(size_bytes / self.sizes_bytes[-1], 1.0)
        return np.where(size_bytes > 0, inside * above, 0.0)

    def write(self, path: Path) -> None:
        """Keeps it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @classmethod
    def kept(cls, about: Mapping[str, str]) -> "Link | None":
        """The one measured before under the same circumstances; None where there is none that can be used."""
        try:
            link = cls.model_validate_json(link_file(about).read_bytes())
        except (OSError, ValidationError):
            return None
        return link if link.about == dict(about) else None


def link_file(about: Mapping[str, str]) -> Path:
    """Where a link is kept; deleting it has it measured again."""
    name = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "links" / f"{name}.json"


@dataclass(frozen=True)
class Links:
    """What lies between the ranks of a run."""

    hosts: Sequence[int]
    """Of every rank, the number of its machine."""
    by_kind: Mapping[str, Link]

    def floors_ns(self, bytes_CNN: Ints) -> Floats:
        """The least that collectives can take, (C,): each rank has one link of each kind, which carries both ways at once, and
        what stays on a rank needs none."""
        host_N = np.array(self.hosts)
        same_NN = host_N[:, None] == host_N
        kinds = {WITHIN: same_NN & ~np.eye(len(host_N), dtype=bool), BETWEEN: ~same_NN}
        floors_C = np.zeros(len(bytes_CNN))
        for kind, link in self.by_kind.items():
            moved_CNN = bytes_CNN * kinds[kind]
            busiest_C = np.maximum(moved_CNN.sum(axis=1).max(axis=1), moved_CNN.sum(axis=2).max(axis=1))
            floors_C = np.maximum(floors_C, link.time_ns(busiest_C))
        return floors_C
