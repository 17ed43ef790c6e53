"""`moeprof history` on the screen, as a page and as JSON."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.analysis.comparison.test_history import copied

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(characterized: Path, tmp_path: Path) -> Path:
    """Thirty runs, of which the last but one has more slots."""
    for day in range(1, 31):
        copied(characterized, tmp_path / "runs" / f"r{day:02}", f"2026-01-{day:02}T12:34:56+00:00", slots=1 + (day == 29))
    return tmp_path / "runs"


def test_a_history_takes_one_screen_and_names_what_got_worse(moeprof: Call, runs: Path) -> None:
    code, stdout, stderr = moeprof("history", runs)
    lines = stdout.splitlines()
    assert (code, stderr) == (0, "")
    assert len(lines) <= 18
    said = " ".join(stdout.split())
    assert (
        "30 runs from 2026-01-01 12:34 to 2026-01-30 12:34: something got worse in 1 of 29 steps, the last time in r29" in said
    )
    assert "expert_slots" in said
    assert "+100%" in said
    assert [line.split()[0] for line in lines if line.startswith("r")][-1] == "r30"
    assert "older runs are left out; `--full` shows all." in said
    assert moeprof("history", runs, "--full")[1].count("\n| r") == 31


def test_json_has_every_entry_with_its_comparison(moeprof: Call, runs: Path) -> None:
    (history,) = json.loads(moeprof("history", runs, "--json")[1])
    assert [one["name"] for one in history["entries"]] == [f"r{day:02}" for day in range(1, 31)]
    assert history["entries"][0]["comparison"] is None
    assert [one["name"] for one in history["entries"][1:] if one["comparison"]["verdict"] == "worse"] == ["r29"]
    first = history["entries"][0]["throughput"][0]
    assert first["low"] <= first["value"] <= first["high"]


def test_a_page_has_a_figure_of_every_recipe(moeprof: Call, runs: Path) -> None:
    page = moeprof("history", runs, "--format", "html")[1]
    assert "Throughput of every run" in page
    assert "r17" in page


def test_an_unknown_format_and_a_folder_without_runs_are_refused(moeprof: Call, runs: Path, tmp_path: Path) -> None:
    code, _, stderr = moeprof("history", runs, "--format", "htm")
    assert (code, stderr.splitlines()[0]) == (2, "Error: unknown format 'htm'")
    (tmp_path / "none").mkdir()
    code, _, stderr = moeprof("history", tmp_path / "none")
    assert code == 2
    assert len(stderr.splitlines()) == 2


def test_names_of_files_cannot_write_to_the_terminal(moeprof: Call, characterized: Path, tmp_path: Path) -> None:
    for day, name in enumerate(("\x1b[31mred", "<script>alert(1)</script>", "[bold]b"), 1):
        copied(characterized, tmp_path / "runs" / name.replace("/", "-"), f"2026-01-0{day}")
    shown = moeprof("history", tmp_path / "runs")[1]
    assert "\x1b[31m" not in shown
    assert "<script>alert(1)" not in moeprof("history", tmp_path / "runs", "--format", "html")[1]
