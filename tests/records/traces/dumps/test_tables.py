"""Counts as text: tables in both dialects, loads by layer, and the statistics of vLLM's balancer."""

import json
from pathlib import Path
from typing import Any

import pytest

from moeprof.records.traces.choice_counts import ALL_DOMAINS
from moeprof.records.traces.layer_map import LayerMap
from tests.records.traces.dumps.dumped import fault, loads, notes, read


def text(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


def lines(path: Path, *records: dict[str, Any]) -> Path:
    return text(path, "".join(f"{json.dumps(record)}\n" for record in records))


def test_the_files_of_all_ranks_are_added_up_and_absent_experts_have_none(tmp_path: Path) -> None:
    one = text(tmp_path / "a_0.csv", "layer_id,expert_id,count\n3,0,5\n3,2,1\n4,1,2\n")
    other = text(tmp_path / "a_1.csv", "layer_id,expert_id,count\n3,0,4\n")
    file = read(one, other, experts=4)
    assert loads(file) == {3: [9, 0, 1, 0], 4: [0, 2, 0, 0]}
    assert notes(file) == []
    assert notes(read(one)) == ["the number of experts is one more than the highest id; --experts states it"]


def test_both_dialects_are_read_and_a_line_without_a_count_is_one_choice(tmp_path: Path) -> None:
    assert loads(read(text(tmp_path / "a.csv", "layer,expert,count\n1,1,7\n"))) == {1: [0, 7]}
    assert loads(read(text(tmp_path / "b.csv", "layer,expert\n1,1\n1,0\n1,1\n"))) == {1: [1, 2]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("layer,expert,count\n", "no lines behind its header"),
        ("layer,expert,count\n1,0,-1\n", "line 2: count -1 is not from 0 to"),
        ("layer,expert,count\n1,65536,1\n", "line 2: expert 65536 is not from 0 to 65,535"),
        ("layer,expert,count\n\n10000,1,1\n", "line 3: layer 10000 is not from 0 to 9,999"),
        ("layer,expert,count\n1,0,nan\n", "line 2, column 'count'"),
        ("layer,expert,count\n1,0,0\n", "no choices in it"),
        ("layer,expert,count,count\n1,0,0,1\n", "column 'count' is twice in the header"),
    ],
)
def test_a_line_that_is_no_count_is_refused(tmp_path: Path, content: str, why: str) -> None:
    assert why in fault(text(tmp_path / "a.csv", content))


def test_what_the_user_states_must_fit_a_table(tmp_path: Path) -> None:
    path = text(tmp_path / "a.csv", "layer,expert,count\n5,3,1\n")
    assert "expert 3 occurs, but --experts states 2" in fault(path, experts=2)
    assert "layer 5 has choices, but the model has no experts there" in fault(path, layers=LayerMap((1, 2), 3))
    assert loads(read(path, layers=LayerMap((4, 5), 6))) == {5: [0, 0, 0, 1]}


LOADS = {"model": {"top_k_experts": 2}, "layers": [{"layer": 2, "counts": [3, 1]}, {"layer": 1, "counts": [2, 2]}]}


def test_loads_by_layer_have_their_numbers_and_the_choices_of_a_token(tmp_path: Path) -> None:
    file = read(lines(tmp_path / "a.json", LOADS))
    assert loads(file) == {1: [2, 2], 2: [3, 1]}
    assert file.counts is not None
    assert file.counts.top_k == 2


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        ([{"layer": 1, "counts": [1]}, {"layer": 2, "counts": [1, 2]}], "rows of different lengths"),
        ([{"layer": 1, "counts": [1]}, {"layer": 1, "counts": [1]}], "layer 1 occurs twice"),
        ([{"layer": "1", "counts": [1]}], "entry 0 of layers has no counts, or no number"),
        ([{"layer": 10**6, "counts": [1]}], "entry 0 of layers has no counts, or no number"),
        ([{"layer": 1, "counts": []}], "is empty"),
        ([{"layer": 1, "counts": [0, 0]}], "no choices in it"),
    ],
)
def test_loads_that_contradict_each_other_are_refused(tmp_path: Path, layers: Any, why: str) -> None:
    assert why in fault(lines(tmp_path / "a.json", {"layers": layers}))
    assert "a token has 2 choices, but --top-k states 1" in fault(lines(tmp_path / "b.json", LOADS), top_k=1)
    assert "top_k is 9" in fault(lines(tmp_path / "c.json", LOADS | {"model": {"top_k_experts": 9}}))


META = {"record_type": "eplb_load_meta", "version": 1, "model": "m", "num_ranks": 2, "num_layers": 1}
MAP = [[0, 1, 0]]


def stats(step: int, load: Any, mapped: Any = MAP) -> dict[str, Any]:
    return {"record_type": "eplb_load_stats", "version": 1, "step": step, "expert_load": load, "p2l_map": mapped}


def test_loads_of_physical_experts_are_mapped_by_the_map_of_their_own_step(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", META, stats(0, [[1, 2, 3]]), stats(1, [[1, 2, 3]], [[0, 1, 1]]))
    file = read(path, layers=LayerMap((4,), 6))
    assert file.counts is not None
    assert (file.counts.layers, file.counts.model) == ([4], "m")
    assert file.counts.counts[ALL_DOMAINS].tolist() == [[[4, 2]], [[1, 5]]]
    assert loads(read(path, physical=True)) == {0: [2, 4, 6]}


def test_a_physical_expert_that_holds_none_has_no_load(tmp_path: Path) -> None:
    assert loads(read(lines(tmp_path / "a.jsonl", META, stats(0, [[1, 2, 0]], [[0, 1, -1]])))) == {0: [1, 2]}
    assert "without a logical one has a load" in fault(lines(tmp_path / "b.jsonl", META, stats(0, [[1, 2, 3]], [[0, 1, -1]])))


@pytest.mark.parametrize(
    ("records", "why"),
    [
        ([META], "no eplb_load_stats in it"),
        ([META, stats(0, [[1, 2]])], "line 2: p2l_map has the shape (1, 3), not (1, 2)"),
        ([META, stats(0, [[1, 2, 3]]), stats(1, [[1, 2]], [[0, 1]])], "line 3: (1, 2) layers and experts, but (1, 3) before"),
        ([META, stats(0, [[1, 2, 3]] * 2, MAP * 2)], "states 1 layers, but the loads are of 2"),
        ([META, stats(0, [[1, 2, float("nan")]])], "line 2: expert_load has values that are not finite"),
        ([META, stats(0, [[1, 2, 3]], [[0, 1, 3]])], "line 2: p2l_map has ids that are not from -1 to 2"),
        ([META, {"record_type": "other"}], "line 2: neither eplb_load_meta nor eplb_load_stats"),
        ([META, stats(0, None)], "line 2: expert_load is no array of numbers"),
    ],
)
def test_damaged_statistics_are_refused(tmp_path: Path, records: Any, why: str) -> None:
    assert why in fault(lines(tmp_path / "a.jsonl", *records))


def test_a_truncated_line_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", META, stats(0, [[1, 2, 3]]))
    path.write_text(path.read_text()[:-20])
    assert "truncated JSON: it ends at line 2, column " in fault(path)
