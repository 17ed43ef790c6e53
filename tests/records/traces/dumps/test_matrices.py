"""Matrices of loads: KTransformers' frequency files, EPLB's weights, and SGLang's expert location with counts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.choice_counts import ALL_DOMAINS, ChoiceCounts
from moeprof.records.traces.formats import FORMATS, format_of
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.trace_format import TraceFile
from tests.records.traces.dumps.dumped import fault, loads, notes, read, sample, saved

TABLE = [[0, 0, 0], [3, 1, 2], [1, 4, 1]]


def test_a_frequency_file_is_a_tensor_or_a_dict_and_steps_add_up(tmp_path: Path) -> None:
    truth = {1: [3, 1, 2], 2: [1, 4, 1]}
    assert loads(read(saved(tmp_path / "a.pt", torch.tensor(TABLE)))) == truth
    assert loads(read(saved(tmp_path / "b.pt", {"logical_count": torch.tensor(TABLE, dtype=torch.int32)}))) == truth
    halves = torch.tensor([TABLE, TABLE])
    assert loads(read(saved(tmp_path / "c.pt", {"logical_count": halves}))) == {1: [6, 2, 4], 2: [2, 8, 2]}


def test_a_frequency_file_has_a_row_for_every_layer_of_the_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", torch.tensor(TABLE))
    assert loads(read(path, layers=LayerMap((1, 2), 3))) == {1: [3, 1, 2], 2: [1, 4, 1]}
    assert "it has 3 layers, but the model has 4" in fault(path, layers=LayerMap((1, 2, 3), 4))
    assert "layer 2 has choices, but the model has no experts there" in fault(path, layers=LayerMap((0, 1), 3))
    assert notes(read(path, layers=LayerMap((0, 1, 2), 3))) == ["layer 0 has experts, but no choices"]


def test_the_layers_of_an_eplb_matrix_are_those_with_experts(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array(TABLE[1:], np.float32))
    file = read(tmp_path / "a.npy")
    assert loads(file) == {0: [3, 1, 2], 1: [1, 4, 1]}
    assert notes(file) == [
        "its layers have no numbers of the model and are counted from 0; --layers or --model-config states them"
    ]
    assert loads(read(tmp_path / "a.npy", layers=LayerMap((3, 7)))) == {3: [3, 1, 2], 7: [1, 4, 1]}
    example = {"weight": torch.tensor(TABLE[1:]), "num_replicas": 4, "phy2log": torch.zeros(2, 4)}
    assert loads(read(saved(tmp_path / "b.pt", example))) == {0: [3, 1, 2], 1: [1, 4, 1]}
    assert loads(read(saved(tmp_path / "c.pt", torch.tensor(TABLE[1:]).double()))) == {0: [3, 1, 2], 1: [1, 4, 1]}


def test_loads_that_are_no_whole_numbers_are_rounded_if_they_are_large(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1000.4, 2000.6]]))
    file = read(tmp_path / "a.npy")
    assert loads(file) == {0: [1000, 2001]}
    assert notes(file)[0] == "its loads are not whole numbers and were rounded"
    np.save(tmp_path / "b.npy", np.array([[0.25, 0.75]]))
    assert "has fractions, such as 0.25, and too few choices to round them" in fault(tmp_path / "b.npy")


def test_counts_of_an_expert_location_are_read_and_a_map_alone_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"logical_count": TABLE}))
    assert loads(read(tmp_path / "a.json")) == {1: [3, 1, 2], 2: [1, 4, 1]}
    (tmp_path / "b.json").write_text(json.dumps({"physical_to_logical_map": [[0, 1]]}))
    what = "it has no logical_count: it says where experts are, and not how often they are chosen"
    assert what in fault(tmp_path / "b.json")
    assert what in fault(saved(tmp_path / "c.pt", {"physical_to_logical_map": torch.tensor([[0, 1]])}))


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (torch.tensor([[1.0, float("nan")]]), "values that are not finite (NaN or infinite)"),
        (torch.tensor([[1.0, float("inf")]]), "not finite"),
        (torch.tensor([1, 2]), "has the shape (2,), but 2 or 3 dimensions are needed"),
        (torch.zeros(0, 4, dtype=torch.int64), "is empty"),
        (torch.zeros(2, 4, dtype=torch.int64), "no choices in it"),
        (torch.tensor([[1, -1]]), "negative or above 2^53"),
        (torch.tensor([[True]]), "is of type bool"),
        (torch.tensor([[1j]]), "is of type complex64"),
        (torch.tensor([[1]]).to_sparse(), "a tensor of the kind torch.sparse_coo"),
        ({"logical_count": [[1]]}, "it is no tensor"),
        ({"logical_count": torch.ones(1, 1, 2**17)}, "more than 10,000 layers or 65,536 experts"),
        (torch.ones(1, device="meta"), "a tensor of the kind torch.strided, torch.float32, meta"),
    ],
)
def test_what_is_no_matrix_of_counts_is_refused(tmp_path: Path, document: Any, why: str) -> None:
    assert why in fault(saved(tmp_path / "a.pt", document), named="ktransformers")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"logical_count": [[1, 2], [3]]}', "logical_count has rows of different lengths"),
        ('{"logical_count": [["a"]]}', "logical_count is no array of numbers"),
        ('{"logical_count": [[true]]}', "logical_count is no array of numbers"),
        ('{"logical_count": [[1e999]]}', "not finite"),
        ('{"logical_count": [[1' + "0" * 30 + "]]}", "logical_count is no array of numbers"),
        ('{"logical_count": []}', "has the shape (0,)"),
        ('{"logical_count": [[1, 2]', "line 1"),
    ],
)
def test_what_is_no_location_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "a.json").write_text(text)
    assert why in fault(tmp_path / "a.json")


def test_a_damaged_array_and_one_of_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[1, 2]]))
    (tmp_path / "a.npy").write_bytes((tmp_path / "a.npy").read_bytes()[:-5])
    assert "the matrix has 11 bytes of data, but its shape (1, 2) needs 16" in fault(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.array([[print, 1]], object), allow_pickle=True)
    assert "the matrix holds Python objects, which are never unpickled" in fault(tmp_path / "b.npy")


@pytest.mark.parametrize(
    ("name", "format_name", "total"),
    [
        ("kt/bare.pt", "ktransformers", 662),
        ("kt/steps.pt", "ktransformers", 2385),
        ("eplb/readme.pt", "eplb", 2189),
        ("sglang/init_count.json", "sglang-location", 2189),
    ],
)
def test_the_real_files_are_recognised_and_add_up(name: str, format_name: str, total: int) -> None:
    path = sample(name)
    assert format_of(InputFile(path)).name == format_name
    assert sum(sum(row) for row in loads(read(path)).values()) == total


@settings(deadline=None, max_examples=40)
@given(
    st.data(),
    st.sampled_from(["ktransformers", "eplb", "sglang-location", "count-csv", "load-json", "eplb-stats", "sglang", "counts"]),
    st.sets(st.integers(0, 6), min_size=1),
    st.integers(1, 4),
)
def test_counts_that_are_written_are_read_again(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, name: str, layers: set[int], num_experts: int
) -> None:
    cells = st.lists(st.integers(0, 2**40), min_size=num_experts, max_size=num_experts).filter(any)
    table = {layer: data.draw(cells) for layer in sorted(layers)}
    counts = ChoiceCounts(list(table), {ALL_DOMAINS: np.array([list(table.values())])}, top_k=1)
    ending = data.draw(st.sampled_from([".npy", ".pt", ".json"]) if name == "eplb" else st.sampled_from([".json", ".pt"]))
    path = tmp_path_factory.getbasetemp() / f"written{ending}"
    write = FORMATS[name].write
    assert write is not None
    write(TraceFile("x", counts=counts), path)
    assert loads(read(path, named=name, experts=num_experts, layers=LayerMap(tuple(table)))) == table
    assert format_of(InputFile(path)).name in {name, "eplb", "ktransformers"}
