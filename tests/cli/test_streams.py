"""What is printed to streams of any encoding, to closed ones and to readers that leave; every command is a real child process."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.cli import group
from moeprof.records.run.run import Run

DRAW = random.Random(1)
ROUTE = "phase,step,layer,slot,expert\n" + "".join(
    f"1,{step},0,0,{step % 7 if DRAW.random() < 0.7 else DRAW.randrange(12)}\n" for step in range(60)
)
"""Experts in turn, and others between them, so that the curves of three policies lie apart and are drawn."""
NOT_UTF8 = os.fsdecode(b"b\xff\xe9")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replay, whose report has a chart."""
    folder = tmp_path_factory.mktemp("replayed")
    (folder / "talk.route.csv").write_text(ROUTE)
    assert group.run(["replay", str(folder / "talk.route.csv"), "--cache", "--out", str(folder / "run"), "--quiet"]) == 0
    return folder / "run"


def child(command: str, *arguments: object, **surroundings: str) -> subprocess.CompletedProcess[bytes]:
    """Runs `command`, a line of a shell in which "$@" is moeprof with its arguments."""
    called = [sys.executable, "-m", "moeprof", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **surroundings}
    return subprocess.run(["bash", "-c", command, "bash", *called], env=environment, capture_output=True, check=False)


@pytest.mark.parametrize(("encoding", "marks"), [("latin-1", "·|+"), ("cp1252", "·|+"), ("shift_jis", ".│└"), ("ascii", ".|+")])
def test_a_chart_is_a_chart_in_every_encoding(run: Path, encoding: str, marks: str) -> None:
    """Characters that an encoding lacks become others of the same width, so that columns stay where they are."""
    result = child('"$@" --full', "report", run, PYTHONIOENCODING=encoding)
    assert (result.returncode, result.stderr) == (0, b"")
    lines, plain = result.stdout.decode(encoding).splitlines(), (run / "report.md").read_text().splitlines()
    assert [len(line) for line in lines] == [len(line) for line in plain]
    assert all(any(mark in line for line in lines) for mark in marks)


@pytest.mark.slow
def test_a_page_is_utf_8_as_it_says_in_every_locale(run: Path) -> None:
    result = child('"$@"', "report", run, "--format", "html", PYTHONIOENCODING="latin-1")
    assert result.stdout.decode("utf-8") == (run / "report.html").read_text()
    assert b'charset="utf-8"' in result.stdout


def test_a_character_that_an_encoding_lacks_can_be_read_in_an_error() -> None:
    result = child('"$@"', "report", "/nonexistent/試", PYTHONIOENCODING="latin-1")
    assert result.returncode == 2
    assert result.stderr.startswith(rb"Error: run /nonexistent/\u8a66: no such file or directory")


@pytest.mark.parametrize(
    "closed",
    [
        pytest.param(">&-", marks=pytest.mark.slow),
        pytest.param("2>&-", marks=pytest.mark.slow),
        "<&- >&- 2>&-",
    ],
)
def test_with_closed_streams_a_command_does_its_work(tmp_path: Path, run: Path, closed: str) -> None:
    """A file of the run must not get the number of a closed stream: what is printed would go into it."""
    trace = run.parent / "talk.route.csv"
    result = child(f'"$@" {closed}', "replay", trace, "--cache", "--out", tmp_path / "run")
    assert (result.returncode, result.stderr) == (0, b"")
    assert Run.open(tmp_path / "run").record.valid
    page = str(tmp_path / "run" / "report.html").encode()
    assert result.stdout.split()[-1:] == ([page] if closed == "2>&-" else [])


def test_a_reader_that_leaves_changes_neither_the_exit_code_nor_what_is_written(tmp_path: Path, run: Path) -> None:
    command = '"$@" 2> "$OUT" | true; echo ${PIPESTATUS[0]}'
    trace, errors = run.parent / "talk.route.csv", tmp_path / "errors"
    result = child(command, "replay", trace, "--cache", "--out", tmp_path / "run", OUT=str(errors))
    assert (result.stdout, errors.read_bytes()) == (b"0\n", b"")
    assert Run.open(tmp_path / "run").record.valid
    assert child(command, "report", "/nonexistent", OUT=str(errors)).stdout == b"2\n"


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_hide_a_verdict(run: Path) -> None:
    result = child('"$@" | true; echo ${PIPESTATUS[0]}', "compare", run, run, "--only", "throughput")
    assert result.stdout == b"4\n"


@pytest.mark.parametrize(
    "columns", [pytest.param("0", marks=pytest.mark.slow), "3", pytest.param("99999999", marks=pytest.mark.slow)]
)
def test_a_report_can_be_read_at_every_width(run: Path, columns: str) -> None:
    result = child('"$@" --format terminal', "report", run, COLUMNS=columns)
    lines = [line.rstrip() for line in result.stdout.decode().splitlines()]
    assert (result.returncode, result.stderr) == (0, b"")
    divisible = [line for line in lines if len(line.split()) > 1]
    assert 35 < max(map(len, divisible)) <= {"0": 80, "99999999": 1000}.get(columns, 40), (
        "only a long word is longer than the line"
    )
    assert "".join(lines).count("lru") >= 2


def test_paths_that_are_not_utf_8_are_read_and_written(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    (folder / f"{NOT_UTF8}.route.csv").write_text(ROUTE)
    replayed = child('"$@"', "replay", folder / f"{NOT_UTF8}.route.csv", "--cache", "--out", folder / f"run{NOT_UTF8}")
    assert (replayed.returncode, replayed.stderr) == (0, b"")
    assert b"b\xff\xe9" in replayed.stdout
    written = Run.open(folder / f"run{NOT_UTF8}")
    assert written.record.valid
    assert os.fsencode(written.record.argv[2]).endswith(b"b\xff\xe9.route.csv")
    assert r"b\udcff\udce9" in (written.path / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_lies_at_a_path_that_is_not_utf_8_is_read_again(tmp_path: Path, run: Path) -> None:
    folder = tmp_path / NOT_UTF8
    shutil.copytree(run, folder / "run")
    assert child('"$@"', "report", folder / "run", "--recompute").returncode == 0
    missing = child('"$@"', "report", folder / "nothing")
    assert (missing.returncode, len(missing.stderr.splitlines())) == (2, 2)
    compared = child('"$@"', "compare", run, folder / "run", "--write", f"junit={folder / NOT_UTF8}.xml", "--only", "misses")
    assert compared.returncode == 0
    assert (folder / f"{NOT_UTF8}.xml").is_file()


@pytest.mark.slow
def test_a_recipe_and_a_text_may_have_paths_that_are_not_utf_8(micro: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / NOT_UTF8
    folder.mkdir()
    recipe = micro("lm").rename(folder / f"{NOT_UTF8}.toml")
    (folder / f"{NOT_UTF8}.txt").write_text("some words of a text, " * 200)
    data = f"a={folder / NOT_UTF8}.txt"
    result = child('"$@"', "characterize", recipe, "--data", data, "--out", folder / f"run{NOT_UTF8}")
    assert (result.returncode, result.stderr) == (0, b"")
    assert Run.open(folder / f"run{NOT_UTF8}").record.ran.data.files["a"] == f"{folder / NOT_UTF8}.txt"
