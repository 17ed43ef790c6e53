"""The format `sglang-location`: SGLang's `--init-expert-location`, a map of physical experts of all layers of the model.

L layers (dense ones too), P physical experts.
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
    in_order,
    map_of,
    placement_of,
)
from moeprof.records.system import torch_file
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.count_arrays import rows_of

KEY = "physical_to_logical_map"


def is_location(file: InputFile) -> bool:
    """Whether the file has the key of such a map, as JSON or as a file of torch, and no records of a recorder."""
    if torch_file.is_torch_file(file):
        return KEY.encode() in file.head and f"last_{KEY}".encode() not in file.head
    return bool(re.match(rf'\s*\{{\s*"{KEY}"', file.head_text))


def read_location(file: InputFile, facts: PlacementFacts) -> Placement:
    """The placement over a stated number of ranks."""
    torch_made = torch_file.is_torch_file(file)
    document = torch_file.load(file) if torch_made else file.json()
    if not isinstance(document, dict) or KEY not in document:
        raise ValueError(f"it has no {KEY}")
    values = torch_file.array(document[KEY]) if torch_made else rows_of(document[KEY], KEY)
    return placement_of(checked_map(values, KEY), facts.ranks, facts.layers)


def write_location(placement: Placement, path: Path, facts: PlacementFacts) -> None:
    """Writes the map, as torch does for *.pt and else as JSON; dense layers get the map that SGLang gives them."""
    map_MP, layers = map_of(placement), [int(name) for name in in_order(placement)]
    num_layers = max(facts.layers.num_layers or 0 if facts.layers else 0, max(layers) + 1)
    map_LP = np.tile(np.arange(map_MP.shape[1]) % placement.num_experts, (num_layers, 1))
    map_LP[layers] = map_MP
    if path.suffix == ".pt":
        torch_file.save(path, {KEY: map_LP})
    else:
        write_text(path, f'{{"{KEY}": [\n' + ",\n".join(json.dumps(row) for row in map_LP.tolist()) + "\n]}\n")


SGLANG_LOCATION = PlacementFormat(
    "sglang-location",
    f"SGLang's {KEY} (*.json, *.pt)",
    recognise=is_location,
    read=read_location,
    write=write_location,
    keeps=frozenset({"layers"}),
)
