"""The history of a recipe: its runs and baselines in the order of their times, each compared with the one before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from moeprof.analysis.comparison.compare import Comparison, compare
from moeprof.analysis.comparison.measurement import REMEDY, Measurement, Number, read_measurements
from moeprof.analysis.comparison.verdicts import Rules
from moeprof.records.errors import UsageError
from moeprof.records.metrics.row import RowKey
from moeprof.records.run.run import Run


@dataclass(frozen=True)
class HistoryEntry:
    """One run, several processes of it, or one baseline of a recipe."""

    name: str
    """Its name in the folder that the user gave, or its path."""
    started: str
    """When the run began, or when the file of a baseline was last written; ISO 8601 in UTC."""
    measurement: Measurement
    comparison: Comparison | None = None
    """With the entry before it; None for the first one."""


@dataclass(frozen=True)
class RunHistory:
    """The entries of one recipe and command, the oldest first."""

    recipe: str
    command: str
    entries: Sequence[HistoryEntry]

    @property
    def followed(self) -> list[RowKey]:
        """The addresses of throughputs over all domains that every entry has, in the order of the last one."""
        addresses = [set(one.measurement.by_address) for one in self.entries]
        return [
            number.address
            for number in self.entries[-1].measurement.numbers
            if number.address.metric == "throughput"
            and not number.address.domain
            and not number.address.point
            and all(number.address in known for known in addresses)
        ]

    def values(self, address: RowKey) -> list[Number]:
        """The number of every entry at an address that all have."""
        return [one.measurement.by_address[address] for one in self.entries]


def histories(paths: Sequence[Path], rules: Rules) -> list[RunHistory]:
    """A history of each recipe and command that has two entries; UsageError if none has."""
    found: dict[tuple[str, str, bool], list[HistoryEntry]] = {}
    for path in paths:
        for name, place in places(path):
            for one in read_measurements(place):
                found.setdefault(one.subject, []).append(HistoryEntry(name, started(place), one))
    several = {subject: sorted(entries, key=lambda one: one.started) for subject, entries in found.items() if len(entries) > 1}
    if not several:
        raise UsageError(
            f"{', '.join(map(str, paths))}: no recipe with two runs or baselines",
            "Pass the folder that has them, or each of them.",
        )
    return [RunHistory(recipe, command, list(in_turn(entries, rules))) for (recipe, command, _), entries in several.items()]


def places(path: Path) -> Iterator[tuple[str, Path]]:
    """What a folder has, by name: runs, folders of the processes of a run, baseline files; or the path itself, if it is one of them.

    UsageError if a folder has none.
    """
    if not path.is_dir() or (path / "run.json").is_file():
        yield str(path), path
        return
    found = [one for one in sorted(path.iterdir()) if one.suffix == ".json" or (one.is_dir() and runs_in(one))]
    if not found:
        raise UsageError(f"{path}: not a run directory, folder of runs, or baseline file", REMEDY)
    yield from ((one.name, one) for one in found)


def runs_in(folder: Path) -> list[Path]:
    """The run directories in a folder, or the folder itself if it is one."""
    return sorted(file.parent for file in folder.rglob("run.json"))


def started(place: Path) -> str:
    """When the first run began, or when a baseline was written."""
    recorded = [Run.open(folder).record.started for folder in runs_in(place)] if place.is_dir() else []
    return min(recorded, default="") or datetime.fromtimestamp(place.stat().st_mtime, UTC).isoformat(timespec="seconds")


def in_turn(entries: Sequence[HistoryEntry], rules: Rules) -> Iterator[HistoryEntry]:
    """Every entry with its comparison with the one before it."""
    before: HistoryEntry | None = None
    for one in entries:
        compared = None
        if before is not None:
            compared = compare(before.name, [before.measurement], one.name, [one.measurement], rules)
        yield HistoryEntry(one.name, one.started, one.measurement, compared)
        before = one
