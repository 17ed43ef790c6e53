"""The registry of placement formats: `moeprof placement` and `convert` read every placement through it.

A new format is one file that defines a `PlacementFormat`, and one name in the table.
"""

import re
from pathlib import Path

from moeprof.records.placement import REMEDY, Placement
from moeprof.records.placement_formats.ascend import ASCEND
from moeprof.records.placement_formats.eplb import EPLB
from moeprof.records.placement_formats.placement_format import PlacementFacts, PlacementFormat
from moeprof.records.placement_formats.sglang_location import SGLANG_LOCATION
from moeprof.records.placement_formats.vllm_map import VLLM_MAP
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.foreign import kind_of_file

NATIVE_BEGIN = re.compile(r"\s*\{")
"""The beginning of a JSON object; a Parquet file has the same keys in its header."""

NATIVE = PlacementFormat(
    "placement",
    "a placement of moeprof (*.json)",
    recognise=lambda file: bool(NATIVE_BEGIN.match(text := file.head_text)) and '"num_experts"' in text and '"layers"' in text,
    read=lambda file, facts: Placement.parsed(file.json()),
    write=lambda placement, path, facts: placement.write(path),
    keeps=frozenset({"layers", "ranks", "hash"}),
)

PLACEMENT_FORMATS = {entry.name: entry for entry in (NATIVE, SGLANG_LOCATION, ASCEND, EPLB, VLLM_MAP)}
NO_FACTS = PlacementFacts()


def placement_format_of(file: InputFile) -> PlacementFormat | None:
    """The format that recognises a file; None if none does."""
    return next((entry for entry in PLACEMENT_FORMATS.values() if entry.recognise(file)), None)


def read_placement(path: Path, facts: PlacementFacts = NO_FACTS) -> Placement:
    """The placement in a file of any known format; UsageError if there is none, or it lacks a fact."""
    source = InputFile(path)
    accepted = f"Give {', '.join(one.title for one in PLACEMENT_FORMATS.values())}."
    with reported(f"placement {path}", accepted):
        entry = placement_format_of(source)
        if entry is None:
            raise ValueError(f"it is no placement, but {kind_of_file(source)}")
    with reported(f"placement {path}", REMEDY if entry is NATIVE else accepted):
        return entry.read(source, facts)
