"""Placements of other tools are read and written; what contradicts itself, or says too little, is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import PlacementFacts
from moeprof.records.placement_formats.registry import PLACEMENT_FORMATS, read_placement
from moeprof.records.traces.layer_map import LayerMap
from tests.records.traces.dumps.dumped import sample, saved

TWO = ((0, 1, 0), (2, 1, 1))
"""Three experts on two ranks, the second of which has expert 1 twice."""


def fault(path: Path, **facts: Any) -> str:
    """The first of the two lines with which a file is refused."""
    with pytest.raises(UsageError) as caught:
        read_placement(path, PlacementFacts(**facts))
    assert str(caught.value).count("\n") == 1
    return caught.value.what


def test_a_map_of_sglang_is_divided_over_the_stated_ranks(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", {"physical_to_logical_map": torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 0, 2, 1, 1]])})
    assert read_placement(path, PlacementFacts(2)).layers == {"0": ((0, 1, 2), (0, 1, 2)), "1": TWO}
    assert read_placement(path, PlacementFacts(2, LayerMap((1,), 2))).layers == {"1": TWO}
    assert "on how many ranks its experts are: --ranks states it" in fault(path)
    assert "6 physical experts cannot be divided evenly over 4 ranks" in fault(path, ranks=4)
    assert "it has 2 layers, but the model has 1 MoE layers of 5" in fault(path, ranks=2, layers=LayerMap((1,), 5))


def test_dense_layers_get_the_map_that_sglang_gives_them(tmp_path: Path) -> None:
    entry = PLACEMENT_FORMATS["sglang-location"]
    entry.write(Placement(3, {"1": TWO}), tmp_path / "a.json", PlacementFacts(layers=LayerMap((1,), 3)))
    trivial = [0, 1, 2, 0, 1, 2]
    assert json.loads((tmp_path / "a.json").read_text()) == {"physical_to_logical_map": [trivial, [0, 1, 0, 2, 1, 1], trivial]}


def test_layers_of_ascend_are_numbered_among_those_with_experts(tmp_path: Path) -> None:
    PLACEMENT_FORMATS["ascend"].write(Placement(3, {"9": TWO, "3": TWO[::-1]}), path := tmp_path / "a.json", PlacementFacts())
    document = json.loads(path.read_text())
    assert document["layer_list"][0] == {
        "layer_id": 0,
        "device_count": 2,
        "device_list": [{"device_id": 0, "device_expert": [2, 1, 1]}, {"device_id": 1, "device_expert": [0, 1, 0]}],
    }
    assert read_placement(path).layers == {"0": TWO[::-1], "1": TWO}
    assert read_placement(path, PlacementFacts(layers=LayerMap((3, 9)))).layers == {"3": TWO[::-1], "9": TWO}
    assert "it has 2 layers with experts, but the model has 1" in fault(path, layers=LayerMap((3,)))


def test_the_tensors_of_eplb_agree_with_each_other(tmp_path: Path) -> None:
    PLACEMENT_FORMATS["eplb"].write(Placement(3, {"0": TWO}), path := tmp_path / "a.pt", PlacementFacts())
    document = torch.load(path, weights_only=True)
    assert document["phy2log"].tolist() == [[0, 1, 0, 2, 1, 1]]
    assert document["log2phy"].tolist() == [[[0, 2, -1], [1, 4, 5], [3, -1, -1]]]
    assert document["logcnt"].tolist() == [[2, 3, 1]]
    assert read_placement(path).layers == {"0": TWO}
    assert "num_gpus is 2, but --ranks states 3" in fault(path, ranks=3)
    saved(path, document | {"log2phy": torch.tensor([[[2, 0, -1, -1], [5, 4, 1, -1], [3, -1, -1, -1]]])})
    assert read_placement(path).layers == {"0": TWO}
    assert "log2phy does not list the copies" in fault(saved(path, document | {"log2phy": torch.zeros(1, 3, 3)}))
    assert "logcnt does not count the copies" in fault(saved(path, document | {"logcnt": torch.tensor([[2, 2, 2]])}))


def ascend(**changes: Any) -> dict[str, Any]:
    layer = {"layer_id": 0, "device_count": 1, "device_list": [{"device_id": 0, "device_expert": [0, 1]}]}
    return {"moe_layer_count": 1, "layer_list": [layer | changes]}


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (ascend(layer_id=1), "its layers are not numbered from 0 to 0, each once"),
        (ascend(device_count=2), "its devices are not numbered from 0 to 1, each once"),
        (ascend(device_list=[]), "layer_list.0.device_list"),
        (ascend(device_list=[{"device_id": 0, "device_expert": [0, 2]}]), "layer 0: expert 1 is on no rank"),
        (ascend(device_list=[{"device_id": 0, "device_expert": [0, -1]}]), "device_expert.1"),
        (ascend() | {"moe_layer_count": 2}, "moe_layer_count is 2, but there are 1 layers"),
        ({"physical_to_logical_map": [[0, 1], [0]]}, "rows of different lengths"),
        ({"physical_to_logical_map": [[0, 1.5]]}, "no table of whole numbers with a row per layer"),
        ({"physical_to_logical_map": [[0, 2]]}, "has ids that are not from 0 to 1"),
        ({"physical_to_logical_map": []}, "no table of whole numbers"),
        ({"physical_to_logical_map": [[0, 0, 2]]}, "layer 0: expert 1 is on no rank"),
        ({"weights": 1}, "it is no placement, but JSON of unknown content"),
        ({"logical_count": [[1, 2]]}, "it is no placement, but counts of experts"),
        ({"schema_version": 1}, "it is no placement"),
        ([[0, 1], [0]], "the map has rows of different lengths"),
        ([[0, 1.5]], "no table of whole numbers with a row per layer"),
        ([[0, 2]], "has ids that are not from 0 to 1"),
        ([[-1, 0]], "has ids that are not from 0 to 1"),
        ([[[0, 1]]], "no table of whole numbers with a row per layer"),
        ([0, 1], "one list for all layers: --layers states them"),
    ],
)
def test_what_is_no_placement_is_refused(tmp_path: Path, document: Any, why: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    assert why in fault(path, ranks=1)


def test_a_map_of_vllm_has_a_row_for_each_layer_with_experts_or_one_for_all(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    PLACEMENT_FORMATS["vllm-map"].write(Placement(3, {"9": TWO, "3": TWO[::-1]}), path, PlacementFacts())
    assert json.loads(path.read_text()) == [[2, 1, 1, 0, 1, 0], [0, 1, 0, 2, 1, 1]]
    assert read_placement(path, PlacementFacts(2)).layers == {"0": TWO[::-1], "1": TWO}
    assert read_placement(path, PlacementFacts(2, LayerMap((3, 9), 10))).layers == {"3": TWO[::-1], "9": TWO}
    assert "6 physical experts cannot be divided evenly over 4 ranks" in fault(path, ranks=4)
    path.write_text("[0, 1, 0, 2, 1, 1]")
    assert read_placement(path, PlacementFacts(2, LayerMap((3, 9)))).layers == {"3": TWO, "9": TWO}


def test_what_a_map_cannot_hold_is_not_written(tmp_path: Path) -> None:
    for entry in (PLACEMENT_FORMATS["eplb"], PLACEMENT_FORMATS["sglang-location"]):
        for placement, why in (
            (Placement(3, {"0": ((0, 1), (2,))}), "layer 0: its ranks hold between 1 and 2 experts"),
            (Placement(2, {"0": ((0,), (1,)), "1": ((0, 1),)}), "different numbers of ranks or of physical experts"),
            (Placement(2, {"dec.0": ((0,), (1,))}), "layer 'dec.0' has no number"),
        ):
            with pytest.raises(ValueError, match=why):
                entry.write(placement, tmp_path / "a.pt", PlacementFacts())


@pytest.mark.parametrize(
    ("name", "ranks"),
    [("eplb/readme.pt", 8), ("sglang/init_map.pt", 8), ("sglang/init_map.json", 4), ("ascend/expert_map.json", 4)],
)
def test_the_real_files_are_the_example_of_eplb(name: str, ranks: int) -> None:
    placement = read_placement(sample(name), PlacementFacts(None if "ascend" in name or "eplb" in name else ranks))
    assert placement.num_ranks == ranks
    assert placement.logical("0") == (5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1)
    assert placement.logical("1") == (7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1)


@settings(deadline=None, max_examples=40)
@given(st.data(), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.sampled_from([*PLACEMENT_FORMATS]))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, num_layers: int, num_ranks: int, share: int, name: str
) -> None:
    slots = num_ranks * share
    num_experts = data.draw(st.integers(1, slots))
    layers = {}
    for layer in range(num_layers):
        more = data.draw(st.lists(st.integers(0, num_experts - 1), min_size=slots - num_experts, max_size=slots - num_experts))
        held = data.draw(st.permutations([*range(num_experts), *more]))
        layers[str(layer)] = tuple(tuple(held[rank * share : (rank + 1) * share]) for rank in range(num_ranks))
    path = tmp_path_factory.getbasetemp() / "written"
    PLACEMENT_FORMATS[name].write(Placement(num_experts, layers), path, PlacementFacts())
    assert read_placement(path, PlacementFacts(num_ranks)) == Placement(num_experts, layers)
