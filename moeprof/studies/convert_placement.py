"""Writes a placement in the format of another tool, and says what that format cannot hold."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import PlacementFacts, PlacementFormat
from moeprof.records.placement_formats.registry import PLACEMENT_FORMATS, placement_format_of, read_placement
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.formats import FORMATS
from moeprof.studies.convert import refuse_existing


@dataclass(frozen=True)
class ConvertedPlacement:
    """What was written, and what was lost."""

    placement: Placement
    target: str
    out: Path
    lost: list[str]


def is_of_placements(paths: Sequence[Path], target: str | None) -> bool:
    """Whether a conversion is of a placement: to a format of placements alone, or of one file that holds one to a format of both.

    UsageError if several files are converted to a format of placements alone.
    """
    if target in PLACEMENT_FORMATS and target not in FORMATS:
        if len(paths) > 1:
            raise UsageError(f"--to {target}: {len(paths)} files", "Give one placement; a recording of loads is none.")
        return True
    if len(paths) != 1 or target not in PLACEMENT_FORMATS or not paths[0].is_file():
        return False
    with reported(f"placement {paths[0]}", "Give a file that can be read."):
        return placement_format_of(InputFile(paths[0])) is not None


def convert_placement(path: Path, out: Path, target: str, facts: PlacementFacts, *, force: bool) -> ConvertedPlacement:
    """Reads the placement in a file and writes it to `out`.

    UsageError if it cannot be read, the target cannot hold it, or `out` exists and `force` is not given.
    """
    refuse_existing(out, force=force)
    placement, entry = read_placement(path, facts), PLACEMENT_FORMATS[target]
    with reported(f"placement {path}", f"Choose another format with --to: {', '.join(PLACEMENT_FORMATS)}."):
        entry.write(placement, out, facts)
    return ConvertedPlacement(placement, target, out, list(lost_facts_of(placement, entry)))


def lost_facts_of(placement: Placement, entry: PlacementFormat) -> Iterator[str]:
    """What the placement states and a format does not."""
    if "layers" not in entry.keeps and sorted(placement.layers) != sorted(map(str, range(len(placement.layers)))):
        yield "the numbers of the layers"
    if "ranks" not in entry.keeps:
        yield "the number of ranks"
    if "hash" not in entry.keeps and placement.model_hash:
        yield "the hash of the weights"
