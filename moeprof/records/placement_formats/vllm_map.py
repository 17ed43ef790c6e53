"""The format `vllm-map`, experimental: vLLM's `physical_to_logical_map` as a JSON list with a row per layer with experts.

vLLM keeps this map in memory only; files of it are proposals. One of them, like this reader, also takes one row for all layers.
L layers with experts, P physical experts.
"""

import json
import re
from pathlib import Path

import numpy as np

from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import (
    PlacementFacts,
    PlacementFormat,
    checked_map,
    map_of,
    placement_of,
)
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.count_arrays import rows_of

NUMBERS = re.compile(r"\s*(\[\s*)+-?\d")
"""The beginning of a list of numbers, or of lists of them, however deep."""


def is_map(file: InputFile) -> bool:
    """Whether the file is a JSON list of numbers, or of lists of numbers."""
    return bool(NUMBERS.match(file.head_text))


def read_map(file: InputFile, facts: PlacementFacts) -> Placement:
    """The placement over a stated number of ranks; one row for all layers needs a map of the layers."""
    values = rows_of(file.json(), "the map")
    if values.ndim == 1:
        if facts.layers is None:
            raise ValueError("it is one list for all layers: --layers states them")
        values = np.tile(values, (len(facts.layers.moe_layers), 1))
    return placement_of(checked_map(values, "the map"), facts.ranks, facts.layers)


def write_map(placement: Placement, path: Path, facts: PlacementFacts) -> None:
    """Writes one line per layer with experts."""
    write_text(path, "[\n" + ",\n".join(json.dumps(row) for row in map_of(placement).tolist()) + "\n]\n")


VLLM_MAP = PlacementFormat(
    "vllm-map",
    "vLLM's physical_to_logical_map, experimental (*.json)",
    recognise=is_map,
    read=read_map,
    write=write_map,
)
