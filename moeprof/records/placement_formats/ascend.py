"""The format `ascend`: vllm-ascend's expert map (`expert_map_path`), whose layers are numbered among those with experts."""

import json
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from moeprof.records.limits import MAX_LAYERS, MAX_RANKS
from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import PlacementFacts, PlacementFormat, in_order
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile

LayerId = Annotated[int, Field(ge=0, lt=MAX_LAYERS)]


class Device(BaseModel):
    """The experts in the slots of a device."""

    model_config = ConfigDict(strict=True)

    device_id: Annotated[int, Field(ge=0, lt=MAX_RANKS)]
    device_expert: list[Annotated[int, Field(ge=0)]]


class AscendLayer(BaseModel):
    """The devices of a layer."""

    model_config = ConfigDict(strict=True)

    layer_id: LayerId
    device_count: int
    device_list: Annotated[list[Device], Field(min_length=1, max_length=MAX_RANKS)]


class ExpertMap(BaseModel):
    """The whole file; other keys are ignored."""

    model_config = ConfigDict(strict=True)

    moe_layer_count: int
    layer_list: Annotated[list[AscendLayer], Field(min_length=1, max_length=MAX_LAYERS)]


def is_expert_map(file: InputFile) -> bool:
    """Whether the file has the keys of an expert map."""
    text = file.head_text
    return (text.lstrip().startswith("{") and '"moe_layer_count"' in text) or '"layer_list"' in text


def read_expert_map(file: InputFile, facts: PlacementFacts) -> Placement:
    """The placement; without a map of layers they keep their numbers among those with experts."""
    document = ExpertMap.model_validate(file.json())
    if document.moe_layer_count != len(document.layer_list):
        raise ValueError(f"moe_layer_count is {document.moe_layer_count}, but there are {len(document.layer_list)} layers")
    found = {layer.layer_id: ranks_of(layer) for layer in document.layer_list}
    if sorted(found) != list(range(len(document.layer_list))):
        raise ValueError(f"its layers are not numbered from 0 to {len(document.layer_list) - 1}, each once")
    names = facts.layers.moe_layers if facts.layers else tuple(sorted(found))
    if len(names) != len(found):
        raise ValueError(f"it has {len(found)} layers with experts, but the model has {len(names)}")
    most = max(expert for ranks in found.values() for rank in ranks for expert in rank) if any(map(any, found.values())) else 0
    return Placement(most + 1, {str(name): found[number] for number, name in enumerate(names)})


def ranks_of(layer: AscendLayer) -> tuple[tuple[int, ...], ...]:
    """The experts of a layer, device by device; ValueError if a device is missing, or occurs twice."""
    held = {device.device_id: tuple(device.device_expert) for device in layer.device_list}
    if layer.device_count != len(layer.device_list) or sorted(held) != list(range(layer.device_count)):
        raise ValueError(f"layer {layer.layer_id}: its devices are not numbered from 0 to {layer.device_count - 1}, each once")
    return tuple(held[number] for number in range(layer.device_count))


def write_expert_map(placement: Placement, path: Path, facts: PlacementFacts) -> None:
    """Writes one line per device."""
    layers = [
        f'  {{"layer_id": {number}, "device_count": {len(placement.layers[name])}, "device_list": [\n'
        + ",\n".join(
            f"   {json.dumps({'device_id': device, 'device_expert': list(held)})}"
            for device, held in enumerate(placement.layers[name])
        )
        + "\n  ]}"
        for number, name in enumerate(in_order(placement))
    ]
    write_text(path, f'{{"moe_layer_count": {len(layers)},\n "layer_list": [\n' + ",\n".join(layers) + "\n ]}\n")


ASCEND = PlacementFormat(
    "ascend",
    "an expert map of vllm-ascend (*.json)",
    recognise=is_expert_map,
    read=read_expert_map,
    write=write_expert_map,
    keeps=frozenset({"ranks"}),
)
