"""The time of a message between two ranks on an idle link: measured once per machine, and kept in a file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from moeprof.records.arrays import Floats, Ints
from moeprof.records.system.files import cache_folder, write_text
from moeprof.records.system.inputs import InputFile, reported

SCHEMA = 1
WITHIN, BETWEEN = "within a machine", "between machines"
"""The two kinds of links: between ranks of one machine, and between ranks of two."""


class Link(BaseModel):
    """The shortest time of a message as a function of its size."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = SCHEMA
    about: dict[str, str] = {}
    """Machines, backend and software that the link was measured with."""
    sizes_bytes: list[int]
    """Message sizes in ascending order."""
    times_ns: list[float]

    @model_validator(mode="after")
    def plausible(self) -> "Link":
        """ValueError if the two lists do not describe a curve."""
        sizes, times = self.sizes_bytes, self.times_ns
        if not sizes or len(sizes) != len(times):
            raise ValueError("sizes_bytes and times_ns must have equal lengths of at least 1")
        if sizes[0] < 1 or any(after <= before for before, after in pairwise(sizes)):
            raise ValueError("sizes_bytes must ascend and be at least 1")
        if not all(0 < time < float("inf") for time in times):
            raise ValueError("times_ns must be above 0")
        if self.schema_version != SCHEMA:
            raise ValueError(f"schema {self.schema_version} is not {SCHEMA}")
        return self

    @property
    def latency_ns(self) -> float:
        """The time of the smallest message."""
        return min(self.times_ns)

    @property
    def bandwidths(self) -> list[float]:
        """Bytes per second, by message size."""
        return [size * 1e9 / time for size, time in zip(self.sizes_bytes, self.times_ns, strict=True)]

    def time_ns(self, size_bytes: Ints) -> Floats:
        """The least time of messages of these sizes: 0 for 0 bytes, and never more than that of a larger message.

        Interpolated linearly between measured sizes; above the largest one its bandwidth holds.
        """
        times = np.minimum.accumulate(np.array(self.times_ns)[::-1])[::-1]
        inside = np.interp(size_bytes, self.sizes_bytes, times)
        above = np.maximum(size_bytes / self.sizes_bytes[-1], 1.0)
        return np.where(size_bytes > 0, inside * above, 0.0)

    def write(self, path: Path) -> None:
        """Writes the link to a JSON file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @classmethod
    def kept(cls, about: Mapping[str, str]) -> "Link | None":
        """The link measured earlier with the same machines and software; None if no usable file exists."""
        try:
            link = cls.model_validate(InputFile(link_file(about)).json())
        except (OSError, ValueError):
            return None
        return link if link.about == dict(about) else None


def link_file(about: Mapping[str, str]) -> Path:
    """The file of a link; if it is deleted, the link is measured again."""
    name = hashlib.sha256(json.dumps(dict(about), sort_keys=True).encode()).hexdigest()[:16]
    return cache_folder() / "links" / f"{name}.json"


class LinksFile(BaseModel):
    """The form of a run's `links.json`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    hosts: list[int]
    by_kind: dict[str, Link]


@dataclass(frozen=True)
class Links:
    """The links between the ranks of a run."""

    hosts: Sequence[int]
    """The index of each rank's machine."""
    by_kind: Mapping[str, Link]

    def write(self, path: Path) -> None:
        """Writes the JSON file of a run directory."""
        document = {"hosts": list(self.hosts), "by_kind": {kind: link.model_dump() for kind, link in self.by_kind.items()}}
        write_text(path, json.dumps(document, indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Links":
        """UsageError if the file is missing or damaged."""
        with reported(f"links {path}", "Repeat the run.", made_again=True):
            document = LinksFile.model_validate(InputFile(path).json())
        return cls(document.hosts, document.by_kind)

    def floors_ns(self, bytes_CNN: Ints) -> Floats:
        """The least time of each of C collectives, (C,), from the bytes between ranks, (C, N, N).

        Each rank has one full-duplex link of each kind; bytes that stay on a rank take no time.
        """
        host_N = np.array(self.hosts)
        same_NN = host_N[:, None] == host_N
        kinds = {WITHIN: same_NN & ~np.eye(len(host_N), dtype=bool), BETWEEN: ~same_NN}
        floors_C = np.zeros(len(bytes_CNN))
        for kind, link in self.by_kind.items():
            moved_CNN = bytes_CNN * kinds[kind]
            busiest_C = np.maximum(moved_CNN.sum(axis=1).max(axis=1), moved_CNN.sum(axis=2).max(axis=1))
            floors_C = np.maximum(floors_C, link.time_ns(busiest_C))
        return floors_C
