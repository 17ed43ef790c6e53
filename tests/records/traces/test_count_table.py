"""Published counts are read as they are, and refused where they are no table."""

import json
from pathlib import Path

import pytest

from moeprof.records.traces.count_table import read_counts
from tests.records.run.runs import fault

TABLE = {"model": "m", "top_k": 1, "layers": [0, 7], "note": "n", "counts": {"a": [[3, 1], [2, 2]], "b": [[0, 4], [4, 0]]}}


def written(path: Path, **changes: object) -> Path:
    path.write_text(json.dumps(TABLE | changes))
    return path


def test_a_table_is_read_and_what_else_the_file_holds_is_left_aside(tmp_path: Path) -> None:
    table = read_counts(written(tmp_path / "c.json"))
    assert (table.num_experts, table.top_k, table.layers) == (2, 1, [0, 7])
    assert table.totals("b").tolist() == [[0, 4], [4, 0]]
    assert table.digest != read_counts(written(tmp_path / "c.json", counts={"a": [[3, 2], [2, 2]]})).digest


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"counts": {"a": [[3, 1], [2]]}}, "different numbers of experts"),
        ({"counts": {"a": [[], []]}}, "different numbers of experts"),
        ({"counts": {"a": [[3, 1]]}}, "a has 1 layers, not 2"),
        ({"counts": {"a": [[3, -1], [2, 2]]}}, "a has a count that is negative or above"),
        ({"counts": {"a": [[3.5, 1], [2, 2]]}}, "counts.a.0.0"),
        ({"counts": {}}, "counts"),
        ({"layers": [7, 7]}, "a layer occurs twice"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 3}, "top_k is 3, but there are 2 experts"),
        ({"top_k": 10**30}, "top_k"),
        ({"layers": [0, 2**31]}, "layers.1"),
        ({"layers": [0, -1]}, "layers.1"),
        ({"counts": {"a": [[3, 1], [2, 2]], "b": [[0, 0], [0, 0]]}}, "b has no choices"),
        ({"counts": {"a": [[1] * 65_537] * 2}}, "65537 experts are more than 65,536"),
        ({"counts": {"a": [[1, 1]] * 10_001}}, "counts.a: list should have at most 10000 items"),
        ({"counts": {"": [[3, 1], [2, 2]]}}, "'' is not a valid name"),
        ({"counts": {"a\n::warning::": [[3, 1], [2, 2]]}}, r"'a\n::warning::' is not a valid name"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, changes: dict[str, object], why: str) -> None:
    path = written(tmp_path / "c.json", **changes)
    assert why in fault(lambda: read_counts(path))


def test_layers_with_different_totals_are_a_remark(tmp_path: Path) -> None:
    assert list(read_counts(written(tmp_path / "c.json")).remarks) == []
    cut = written(
        tmp_path / "c.json", layers=[0, 7, 9], counts={"a": [[3, 1], [2, 100_001], [0, 0]], "b": [[1, 3], [4, 0], [0, 0]]}
    )
    assert list(read_counts(cut).remarks) == [
        "a has 4 choices in layer 0, but 100,003 in layer 7; every layer should have the same number"
    ]


def test_a_layer_that_is_silent_in_one_domain_only_is_a_remark(tmp_path: Path) -> None:
    silent = written(tmp_path / "c.json", counts={"a": [[2, 1], [0, 0]], "b": [[1, 3], [4, 0]]})
    assert list(read_counts(silent).remarks) == [
        "a has 0 choices in layer 7, but 3 in layer 0; every layer should have the same number"
    ]


def test_an_expert_that_is_chosen_more_often_than_there_are_tokens_is_a_remark(tmp_path: Path) -> None:
    table = written(tmp_path / "c.json", top_k=2, layers=[0, 7, 9], counts={"a": [[2, 2], [1, 3], [4, 0]]})
    assert list(read_counts(table).remarks) == [
        "a has 3 choices of expert 1 in layer 7, but 4 choices are 2 tokens with 2 different experts each; further layers: 1"
    ]


def test_a_domain_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text('{"top_k": 1, "layers": [0], "counts": {"a": [[1, 2]], "b": [[2, 1]], "a": [[3, 0]]}}')
    assert "'a' occurs twice" in fault(lambda: read_counts(path))


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in fault(lambda: read_counts(tmp_path / "none.json"))
    (tmp_path / "c.json").write_bytes(b"\xff[")
    fault(lambda: read_counts(tmp_path / "c.json"))


def test_the_published_counts_of_mixtral_add_up(shared_data: Path) -> None:
    table = read_counts(shared_data / "loads" / "mixtral_8x7b_counts.json")
    assert list(table.counts) == ["github", "arxiv", "c4", "book", "wikipedia"]
    assert {total for domain in table.counts for total in table.totals(domain).sum(axis=1).tolist()} == {417_792}
