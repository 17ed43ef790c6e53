"""A placement is a file that people read and edit: missing and repeated experts are noticed."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.records.errors import UsageError
from moeprof.records.placement import Placement


def write_document(path: Path, **changes: object) -> Path:
    """A placement file of 4 experts on 2 ranks, with some keys changed."""
    document = {"schema_version": 1, "model_hash": "", "num_experts": 4, "layers": {"1": [[0, 1], [2, 3]]}} | changes
    path.write_text(json.dumps(document))
    return path


def fault(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        Placement.read(path)
    assert str(caught.value).count("\n") == 1
    return caught.value.what


@pytest.mark.parametrize("number", [0, -1, 100_000_000, 10**30])
def test_a_number_of_experts_out_of_range_is_refused(tmp_path: Path, number: int) -> None:
    assert "num_experts: must be" in fault(write_document(tmp_path / "p.json", num_experts=number, layers={}))


def test_contiguous_gives_each_rank_its_share_in_order() -> None:
    placement = Placement.contiguous(["1", "3"], 8, 4)
    assert placement.layers == {"1": ((0, 1), (2, 3), (4, 5), (6, 7)), "3": ((0, 1), (2, 3), (4, 5), (6, 7))}
    assert placement.logical("3") == (0, 1, 2, 3, 4, 5, 6, 7)


def test_experts_that_do_not_divide_over_the_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="8 experts cannot be divided evenly over 3 ranks"):
        Placement.contiguous(["1"], 8, 3)


def test_physical_ids_count_through_the_ranks() -> None:
    placement = Placement(3, {"0": ((2, 0), (1, 2))})
    assert placement.logical("0") == (2, 0, 1, 2)


def test_a_missing_and_a_foreign_expert_are_named() -> None:
    with pytest.raises(ValueError, match=r"layer dec\.3: expert 2 is on no rank"):
        Placement(4, {"dec.3": ((0, 1), (3,))})
    with pytest.raises(ValueError, match="layer 1: there is no expert 4 among 4"):
        Placement(4, {"1": ((0, 1), (2, 3, 4))})
    with pytest.raises(ValueError, match="layer 1: there is no expert -1 among 2"):
        Placement(2, {"1": ((0, 1), (-1,))})


def test_an_expert_may_be_twice_on_a_rank_but_no_model_is_run_so() -> None:
    twice = Placement(3, {"1": ((0, 1), (2, 2))})
    assert twice.homes("1") == {0: (0,), 1: (0,), 2: (1, 1)}
    with pytest.raises(ValueError, match=r"layer 1: expert 2 is listed twice on rank 1"):
        twice.check(["1"], 3, 2)
    assert Placement(3, {"1": ((0, 2), (2, 1))}).homes("1") == {0: (0,), 1: (1,), 2: (0, 1)}


def test_two_placements_are_told_apart_expert_by_expert() -> None:
    before = Placement(3, {"1": ((0, 1), (2, 0)), "3": ((0, 1), (2,))})
    after = Placement(3, {"1": ((0, 2), (2, 1)), "5": ((0,), (1, 2))})
    assert [tuple(move) for move in before.moves(after)] == [
        ("1", 0, (0, 1), (0,)),
        ("1", 1, (0,), (1,)),
        ("1", 2, (1,), (0, 1)),
        ("3", 0, (0,), ()),
        ("3", 1, (0,), ()),
        ("3", 2, (1,), ()),
        ("5", 0, (), (0,)),
        ("5", 1, (), (1,)),
        ("5", 2, (), (1,)),
    ]
    assert list(before.moves(before)) == []


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        ((["1"], 4, 2, "b" * 64), f"made for another model: weights {'a' * 12}, not {'b' * 12}"),
        ((["1"], 8, 2, ""), "made for 4 experts, but the model has 8"),
        ((["1", "3"], 4, 2, ""), "layer 3 is missing"),
        ((["1"], 4, 4, "a" * 64), "layer 1: made for 2 ranks, not 4"),
    ],
)
def test_a_placement_of_something_else_is_refused(asked: tuple[list[str], int, int, str], what: str) -> None:
    placement = Placement(4, {"1": ((0, 1), (2, 3))}, model_hash="a" * 64)
    with pytest.raises(ValueError, match=what):
        placement.check(*asked)
    placement.check(["1"], 4, 2, "a" * 64)
    placement.check(["1"], 4, 2)


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_a_placement_comes_back_from_its_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    num_experts = data.draw(st.integers(1, 12))
    ranks = st.permutations(range(num_experts)).flatmap(
        lambda order: st.integers(0, num_experts).map(
            lambda cut: (tuple(order[:cut]), tuple(order[cut:]) + tuple(order[:1] if cut else ()))
        )
    )
    layers = data.draw(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), ranks, max_size=4))
    placement = Placement(num_experts, layers, model_hash="abc")
    path = tmp_path_factory.mktemp("placement") / "p.json"
    placement.write(path)
    assert Placement.read(path) == placement


def test_the_file_has_one_line_per_rank(tmp_path: Path) -> None:
    Placement.contiguous(["1"], 4, 2).write(tmp_path / "p.json")
    lines = [line.strip() for line in (tmp_path / "p.json").read_text().splitlines()]
    assert lines[lines.index('"1": [') + 1 :][:2] == ["[0, 1],", "[2, 3]"]


def test_experts_that_numpy_counted_are_written_as_numbers(tmp_path: Path) -> None:
    order = np.argsort([0.4, 0.1, 0.3, 0.2])
    Placement(4, {"1": (tuple(order[:2]), tuple(order[2:]))}).write(tmp_path / "p.json")
    assert Placement.read(tmp_path / "p.json").logical("1") == (1, 3, 2, 0)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "no such file" in fault(tmp_path / "none.json").lower()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"layers": {}}', b"[" * 9999])
def test_a_file_that_holds_no_placement_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.json").write_bytes(content)
    assert fault(tmp_path / "p.json").startswith(f"placement {tmp_path}/p.json: ")


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts": "4"},
        {"num_experts": 4.5},
        {"layers": {"1": [0, 1, 2, 3]}},
        {"layers": {"1": [[0, 1], [2, True]]}},
        {"layers": [[[0, 1], [2, 3]]]},
        {"extra": 1},
    ],
)
def test_wrong_types_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    fault(write_document(tmp_path / "p.json", **changes))


def test_an_expert_that_a_file_leaves_out_is_named(tmp_path: Path) -> None:
    what = fault(write_document(tmp_path / "p.json", layers={"1": [[0, 1], [2]]}))
    assert what == f"placement {tmp_path}/p.json: layer 1: expert 3 is on no rank"


def test_a_wrong_key_is_named(tmp_path: Path) -> None:
    assert "num_experts" in fault(write_document(tmp_path / "p.json", num_experts="four"))


def test_a_placement_of_a_newer_moeprof_is_refused(tmp_path: Path) -> None:
    assert "newer" in fault(write_document(tmp_path / "p.json", schema_version=2))
