"""`moeprof placement` as its users type it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.records.placement import Placement
from moeprof.reporters.documents.placement import listed

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """For the micro model on two ranks: expert 0 is on both, expert 3 came to rank 0."""
    Placement(4, {"1": ((0, 1, 3), (2, 0, 1))}).write(tmp_path / "p.json")
    return tmp_path / "p.json"


def test_it_shows_who_holds_what(moeprof: Call, file: Path) -> None:
    code, stdout, stderr = moeprof("placement", "show", file)
    assert (code, stderr) == (0, "")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in stdout.splitlines() if line.startswith("| 1")]
    assert lines == [["1", "0", "3", "1", "0-1 3"], ["1", "1", "3", "2", "0-2"]]
    assert "4 experts in each of 1 layers on 2 ranks, 2 copies." in stdout
    assert json.loads(moeprof("placement", "show", file, "--json")[1])["layers"] == {"1": [[0, 1, 3], [2, 0, 1]]}


def test_it_tells_two_apart(moeprof: Call, file: Path, tmp_path: Path) -> None:
    other = tmp_path / "q.json"
    Placement.contiguous(["1"], 4, 2).write(other)
    code, stdout, _ = moeprof("placement", "diff", other, file)
    assert code == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in stdout.splitlines() if line.startswith("| 1")]
    assert lines == [["1", "0", "0-1", "0-1"], ["1", "1", "0", "3"]]
    moves = json.loads(moeprof("placement", "diff", other, file, "--json")[1])["moves"]
    assert moves[-1] == {"layer": "1", "expert": 3, "before": [1], "after": [0]}
    assert "Both placements have the same experts on the same ranks." in moeprof("placement", "diff", file, file)[1]


def test_it_says_what_makes_two_hard_to_compare(moeprof: Call, tmp_path: Path) -> None:
    Placement(4, {"1": ((0, 1, 2, 3),)}, "a" * 64).write(tmp_path / "a.json")
    Placement(4, {"1": ((0, 1), (2, 3))}, "b" * 64).write(tmp_path / "b.json")
    stdout = moeprof("placement", "diff", tmp_path / "a.json", tmp_path / "b.json")[1]
    assert "The placements are for different models: aaaaaaaaaaaa and bbbbbbbbbbbb." in stdout
    assert "The first placement is for 1 ranks, the second for 2." in stdout


def test_placements_of_different_numbers_of_experts_are_not_compared(moeprof: Call, file: Path, tmp_path: Path) -> None:
    Placement.contiguous(["1"], 6, 2).write(tmp_path / "six.json")
    code, stdout, stderr = moeprof("placement", "diff", file, tmp_path / "six.json")
    assert (code, stdout) == (2, "")
    assert stderr == f"Error: placement {tmp_path}/six.json: 6 experts; {file} has 4\nGive two placements of one model.\n"


def test_copies_that_share_a_rank_have_moved_once(moeprof: Call, tmp_path: Path) -> None:
    Placement(4, {"1": ((0, 1, 3, 3), (2, 3, 0, 1))}).write(tmp_path / "twice.json")
    stdout = moeprof("placement", "show", tmp_path / "twice.json")[1]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in stdout.splitlines() if line.startswith("| 1")]
    assert [line[2:4] for line in lines] == [["4", "1"], ["4", "2"]]
    Placement(4, {"1": ((0, 1, 3), (2, 3, 0, 1))}).write(tmp_path / "once.json")
    stdout = moeprof("placement", "diff", tmp_path / "once.json", tmp_path / "twice.json")[1]
    assert "0 experts in 1 layers change rank. 1 have another number of copies on the same ranks." in stdout


def test_it_checks_a_file_against_a_recipe(moeprof: Call, file: Path, micro: Micro) -> None:
    code, stdout, _ = moeprof("placement", "check", file, "--recipe", micro("lm"))
    assert (code, stdout) == (
        0,
        f"{file}: fits recipe lm-micro on 2 ranks; the file has no weights hash, so the weights were not checked\n",
    )
    told = moeprof("placement", "check", file, "--recipe", micro("lm"), "--ranks", 2, "--json")[1]
    assert json.loads(told) == {"fits": True, "recipe": "lm-micro", "ranks": 2}
    code, stdout, stderr = moeprof("placement", "check", file, "--recipe", micro("lm"), "--ranks", 4)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(
        f"Error: placement {file}: layer 1: made for 2 ranks, not 4\nGive a placement that was made for recipe lm-"
    )
    code, _, stderr = moeprof("placement", "check", file, "--recipe", micro("mt"))
    assert code == 2
    assert "layer enc.1 is missing" in stderr


@pytest.mark.parametrize("verb", [("show",), ("diff",), ("check", "--recipe", "lm-tiny")])
def test_a_file_that_is_none_is_refused(moeprof: Call, file: Path, tmp_path: Path, verb: tuple[str, ...]) -> None:
    (tmp_path / "no.json").write_text("{}")
    code, stdout, stderr = moeprof("placement", *verb, *([file] if verb == ("diff",) else []), tmp_path / "no.json")
    assert (code, stdout, stderr.count("\n")) == (2, "", 2)
    assert stderr.startswith(f"Error: placement {tmp_path}/no.json: ")


def test_it_needs_no_torch(file: Path) -> None:
    code = (
        "import sys; from moeprof.cli.group import run\n"
        f"assert run(['placement', 'show', {str(file)!r}]) == 0\n"
        f"assert run(['placement', 'check', {str(file)!r}, '--recipe', 'lm-tiny']) == 2\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=60)


def test_neighbours_are_drawn_together() -> None:
    assert listed([3, 1, 2, 7, 10, 9]) == "1-3 7 9-10"
    assert listed([]) == ""


def test_placements_of_servers_are_shown_compared_and_converted(moeprof: Call, tmp_path: Path) -> None:
    sglang, ascend = tmp_path / "map.json", tmp_path / "ascend.json"
    sglang.write_text(json.dumps({"physical_to_logical_map": [[0, 1, 0, 1, 2, 3], [0, 1, 1, 1, 2, 3]]}))
    code, stdout, _ = moeprof("convert", sglang, ascend, "--to", "ascend", "--ranks", "2", "--layers", "1")
    lost = "Lost, because ascend has no field for it: the numbers of the layers"
    assert (code, stdout) == (0, f"{ascend}: 4 experts in 1 layers on 2 ranks, as ascend\n{lost}\n")
    assert json.loads(moeprof("placement", "show", ascend, "--json")[1])["layers"] == {"0": [[0, 1, 1], [1, 2, 3]]}
    code, stdout, _ = moeprof("placement", "diff", sglang, ascend, "--ranks", "2", "--layers", "1")
    assert (code, stdout.strip()) == (0, "Both placements have the same experts on the same ranks.")
    code, _, stderr = moeprof("placement", "show", sglang)
    assert (code, stderr.count("\n")) == (2, 2)
    assert "--ranks states it" in stderr


def test_a_placement_with_an_expert_twice_on_a_rank_fits_no_model(moeprof: Call, tmp_path: Path, micro: Micro) -> None:
    path = tmp_path / "twice.json"
    Placement(4, {"1": ((0, 1, 1), (2, 3, 0))}).write(path)
    code, _, stderr = moeprof("placement", "check", path, "--recipe", micro("lm"))
    assert code == 2
    assert "layer 1: expert 1 is listed twice on rank 0" in stderr


@pytest.mark.parametrize(
    ("target", "layer", "lost"),
    [
        ("sglang-location", "3", "the number of ranks, the hash of the weights"),
        ("ascend", "3", "the numbers of the layers, the hash of the weights"),
        ("ascend", "0", "the hash of the weights"),
        ("eplb", "3", "the numbers of the layers, the hash of the weights"),
        ("vllm-map", "3", "the numbers of the layers, the number of ranks, the hash of the weights"),
    ],
)
def test_what_a_format_of_placements_cannot_state_is_lost(
    moeprof: Call, tmp_path: Path, target: str, layer: str, lost: str
) -> None:
    Placement(2, {layer: ((0,), (1,))}, "a" * 64).write(tmp_path / "p.json")
    stdout = moeprof("convert", tmp_path / "p.json", tmp_path / "map.pt", "--to", target)[1]
    assert stdout.splitlines()[1:] == [f"Lost, because {target} has no field for it: {lost}"]


def test_a_placement_of_moeprof_loses_nothing(moeprof: Call, tmp_path: Path) -> None:
    Placement(2, {"0": ((0,), (1,))}, "a" * 64).write(tmp_path / "p.json")
    result = json.loads(moeprof("convert", tmp_path / "p.json", tmp_path / "q.json", "--to", "placement", "--json")[1])
    assert (result["experts"], result["ranks"], result["layers"], result["lost"]) == (2, 2, ["0"], [])
    code, _, stderr = moeprof("convert", tmp_path / "p.json", tmp_path / "q.json", "--to", "placement")
    assert (code, "it exists already" in stderr) == (2, True)


def test_loads_are_no_placement_and_several_files_are_none_either(moeprof: Call, tmp_path: Path) -> None:
    (loads := tmp_path / "loads.json").write_text('{"layers": [0], "counts": {"all": [[1, 3]]}}')
    for inputs, what in (([loads], f"placement {loads}: it is no placement, but"), ([loads, loads], "--to ascend: 2 files")):
        code, _, stderr = moeprof("convert", *inputs, tmp_path / "map.json", "--to", "ascend")
        assert (code, len(stderr.splitlines())) == (2, 2)
        assert stderr.startswith(f"Error: {what}")
