"""Every command prints a run on one screen, into a pipe too; `--full` prints the rest."""

from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.reporters.cells import percent, times
from moeprof.reporters.documents.answer import KeyNumber
from moeprof.reporters.documents.short import number_table
from moeprof.reporters.layout import lines_of
from tests.studies.replay.logs import route_log

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]

LINES, COLUMNS = 18, 80
STEPS = [[0, 1], [0, 1], [0, 2], [3, 1], [2, 3], [0, 1], [1, 2], [0, 3]]


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(COLUMNS))


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two layers, a prefill of two tokens, eight decode steps."""
    return route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)


@pytest.mark.parametrize(("command", "options"), [("characterize", ()), ("optimize", ("--dynamic-gating", "--no-sweep"))])
def test_two_recipes_fit_a_terminal_of_80_by_40(
    moeprof: Call, micro: Micro, tmp_path: Path, command: str, options: tuple[str, ...]
) -> None:
    code, stdout, stderr = moeprof(command, micro("lm"), micro("mt"), *options, "--out", tmp_path / "runs")
    assert (code, stderr) == (0, "")
    assert_runs_are_short(stdout, [tmp_path / "runs" / name for name in ("lm-micro", "mt-micro")])
    assert len(stdout.splitlines()) <= 38, "two more lines are the prompt and the command"
    assert "by region: " in stdout
    again = moeprof("report", tmp_path / "runs" / "lm-micro", tmp_path / "runs" / "mt-micro")
    assert again == (0, stdout, "")


def test_replays_and_traces_are_short(moeprof: Call, log: Path, tmp_path: Path) -> None:
    _, stdout, _ = moeprof("replay", log, "--devices", "2", "--balance", "--out", tmp_path / "placements")
    assert_runs_are_short(stdout, [tmp_path / "placements"])
    assert "Busiest of 2 devices, decode: e even share, a above it\n" in stdout
    _, stdout, _ = moeprof("replay", log, "--out", tmp_path / "both")
    assert_runs_are_short(stdout, [tmp_path / "both" / "caches", tmp_path / "both" / "placements"])
    assert "Accesses in decode with " in stdout
    _, stdout, _ = moeprof("characterize", log, "--out", tmp_path / "characterized")
    assert_runs_are_short(stdout, [tmp_path / "characterized"])


def test_full_prints_everything_and_names_no_other_report(moeprof: Call, log: Path, tmp_path: Path) -> None:
    _, full, _ = moeprof("characterize", log, "--full", "--out", tmp_path / "run")
    assert len(full.splitlines()) > 4 * LINES
    assert "Full report: " not in full


def test_a_run_without_its_page_names_the_command_for_the_full_report(moeprof: Call, log: Path, tmp_path: Path) -> None:
    moeprof("characterize", log, "--out", tmp_path / "run")
    (tmp_path / "run" / "report.html").unlink()
    _, stdout, _ = moeprof("report", tmp_path / "run")
    assert stdout.endswith(f"`moeprof report {tmp_path / 'run'} --full`\n"), "the command is in one piece"


@pytest.mark.parametrize("columns", ["40", "200"])
def test_a_run_is_short_at_other_widths_too(
    moeprof: Call, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    _, stdout, _ = moeprof("replay", log, "--cache", "--out", tmp_path / "run")
    assert len(stdout.splitlines()) <= LINES
    assert f"{tmp_path / 'run' / 'report.html'}\n" in stdout


def assert_runs_are_short(stdout: str, folders: list[Path]) -> None:
    """Each run has a title, a table, and its page in the last line, in at most 18 lines of 80 columns."""
    *runs, rest = (part for part in stdout.split("report.html\n"))
    assert rest == ""
    assert len(runs) == len(folders)
    for text, folder in zip(runs, folders, strict=True):
        lines = (text + "report.html").splitlines()
        assert len(lines) <= LINES
        assert lines[:1] == [""]
        assert lines[1].startswith("moeprof ")
        assert any(line.startswith("key number") for line in lines)
        assert " ".join(lines[-2:]).endswith(f"Full report: {folder / 'report.html'}")
        assert all(len(line) <= COLUMNS for line in lines if str(folder) not in line)


def test_at_eighty_columns_every_number_keeps_its_interval_its_remark_and_its_bound() -> None:
    numbers = [
        KeyNumber("speed-up, decoding (batch 16)", 1.3, times, 0.9, 2.5, ("at most", 4.0), "no measurable difference"),
        KeyNumber("miss rate, decoding", 0.4, percent, bound=("compulsory", 0.1)),
    ]
    for width in (40, 80, 200):
        words = " ".join(line.text for line in lines_of(number_table(numbers, 2, width), width)).split()
        assert {"1.3x", "0.9x", "2.5x", "4x", "no", "40.0%", "10.0%", "(2", "more)"} <= {word.strip(";") for word in words}
    assert "95% interval" in number_table(numbers, 0, 200).columns
