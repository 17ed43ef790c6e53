"""`moeprof characterize TRACE` as its users type it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.studies.replay.logs import route_log

Call = Callable[..., tuple[int, str, str]]

STEPS = [[0, 1], [0, 1], [0, 2], [3, 1]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two layers, a prefill of two tokens, four decode steps."""
    return route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)


def test_the_report_is_printed_and_rendered_again(moeprof: Call, log: Path, tmp_path: Path) -> None:
    code, stdout, stderr = moeprof("characterize", log, "--full", "--out", tmp_path / "run")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("# moeprof characterize: talk\n")
    assert stdout == (tmp_path / "run" / "report.md").read_text() == moeprof("report", tmp_path / "run", "--full")[1]
    assert "Phase prefill: the tokens of a prompt in one step" in stdout
    code, stdout, _ = moeprof("report", tmp_path / "run", "--recompute", "--json")
    assert code == 0
    assert json.loads(stdout)["run"]["characterization"]["trace"]["name"] == "talk"


def test_the_default_folder_is_named_after_the_trace(moeprof: Call, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(log.parent)
    assert moeprof("characterize", log.name)[0] == 0
    assert [path.name.rpartition("-")[0] for path in (log.parent / "reports").iterdir()] == ["talk-characterize"]


def test_no_torch_is_imported(log: Path, tmp_path: Path) -> None:
    arguments = ["characterize", str(log), "--out", str(tmp_path / "run")]
    code = f"import sys; from moeprof.cli import group; print(group.run({arguments}), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "0 False"


def test_two_characterizations_are_compared(moeprof: Call, log: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    other = route_log(tmp_path / "logs" / "talk.route.csv", STEPS[::-1], layers=2)
    for path, out in ((log, "one"), (log, "two"), (other, "other")):
        assert moeprof("characterize", path, "--out", tmp_path / out)[0] == 0
    assert moeprof("compare", tmp_path / "one", tmp_path / "two", "--strict")[0] == 0
    assert "routing" in moeprof("compare", tmp_path / "one", tmp_path / "other")[1]


def test_wrong_arguments_are_two_lines(moeprof: Call, log: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    for arguments, what in (
        ((log, "--data", "x=y.txt"), f"--data: an option of a run of a model; {log} is a trace"),
        (("lm-tiny", "--variant", "static"), "--variant: an option of a trace; no trace is given"),
        ((log, log), f"trace {log}: a second file beside {log}"),
        ((log, "lm-tiny"), f"trace {log}: recipe lm-tiny is given too"),
        ((log, "--from", "nosuch"), "--from nosuch: unknown format"),
        ((tmp_path / "absent.route.csv",), f"trace {tmp_path / 'absent.route.csv'}: no such file"),
        ((tmp_path / "notes.txt",), "text that begins with 'hello'"),
        ((log, "--experts", "9"), "states 4 experts"),
        (("lm-tny",), "recipe 'lm-tny': unknown built-in recipe"),
    ):
        code, stdout, stderr = moeprof("characterize", *arguments, "--out", tmp_path / "run")
        assert (code, stdout, stderr.count("\n")) == (2, "", 2), stderr
        assert what in stderr
        assert not (tmp_path / "run").exists()


def test_a_recipe_wins_over_a_folder_of_its_name(moeprof: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lm-tiny").mkdir()
    assert "--variant: an option of a trace" in moeprof("characterize", "lm-tiny", "--variant", "static")[2]
    assert "a folder without run.json" in moeprof("characterize", "./lm-tiny")[2]
