"""Signals at chosen points of a command: its exit code and what remains say the same."""

import os
import pydoc
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moeprof.records.run.run import Run
from moeprof.records.system.files import PARTIAL
from moeprof.records.system.signals import exit_code
from tests.cli.smallest import COMMANDS, prepare

Call = Callable[..., tuple[int, str, str]]
Strike = Callable[[int, str, int], None]

INT, TERM, HUP = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
REASON = {INT: "interrupted", TERM: "ended by SIGTERM", HUP: "ended by SIGHUP"}
WRITER = "moeprof.records.run.writer"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    return prepare(tmp_path_factory.mktemp("given"))


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch, signals: None) -> Strike:
    """A function that makes a signal come in front of a call: by the path of the function, and the number of the call from 1."""

    def at(number: int, where: str, call: int) -> None:
        usual: Any = pydoc.locate(where)
        calls: list[str] = []

        def struck(*arguments: Any, **named: Any) -> Any:
            calls.append(where)
            if len(calls) == call:
                os.kill(os.getpid(), number)
            return usual(*arguments, **named)

        monkeypatch.setattr(where, struck)

    return at


def left(folder: Path) -> list[str]:
    """The files that a command left, without those inside a run."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.parent.name != "run")


EARLY = [
    ("characterize", f"{WRITER}.claim", 1, TERM),
    ("characterize", f"{WRITER}.RunWriter.rewrite", 3, HUP),
    ("characterize", f"{WRITER}.RunWriter.complete", 1, INT),
    ("optimize", f"{WRITER}.RunWriter.rewrite", 5, TERM),
    ("replay", f"{WRITER}.write_record", 1, HUP),
    ("replay", f"{WRITER}.RunWriter.finish", 1, TERM),
]
LATE = [
    ("characterize", f"{WRITER}.write_record", 2, TERM),
    ("characterize", "moeprof.cli.running.write_reports", 1, HUP),
    ("replay", "moeprof.cli.output.render_all", 1, INT),
]


@pytest.mark.parametrize(("command", "where", "call", "number"), EARLY)
def test_a_signal_that_comes_before_a_run_is_complete_leaves_it_invalid(
    moeprof: Call, strike: Strike, given: Path, tmp_path: Path, command: str, where: str, call: int, number: signal.Signals
) -> None:
    strike(number, where, call)
    code, stdout, stderr = moeprof(*COMMANDS[command](given, tmp_path))
    record = Run.open(tmp_path / "run").record
    assert (code, stdout) == (128 + number, "")
    assert stderr.splitlines()[0] == f"moeprof: the partial run is kept in {tmp_path / 'run'} and marked invalid"
    assert stderr.splitlines()[-1] == f"moeprof: {REASON[number]}"
    assert (record.valid, record.reasons) == (False, [REASON[number]])
    assert "NOT VALID" in (tmp_path / "run" / "report.md").read_text()
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))


@pytest.mark.parametrize(("command", "where", "call", "number"), LATE)
def test_a_signal_that_comes_when_a_run_is_complete_changes_nothing(
    moeprof: Call, strike: Strike, given: Path, tmp_path: Path, command: str, where: str, call: int, number: signal.Signals
) -> None:
    strike(number, where, call)
    code, stdout, stderr = moeprof(*COMMANDS[command](given, tmp_path), "--full")
    assert (code, stderr) == (0, "")
    assert Run.open(tmp_path / "run").record.valid
    assert (tmp_path / "run" / "report.md").read_text() == stdout
    assert not list(tmp_path.rglob(f"*{PARTIAL}"))


@pytest.mark.parametrize("number", [INT, TERM])
def test_a_signal_that_comes_while_a_complete_run_is_printed_ends_the_output_and_not_the_run(
    moeprof: Call, strike: Strike, given: Path, tmp_path: Path, number: signal.Signals
) -> None:
    strike(number, "moeprof.cli.output.write", 1)
    code, stdout, stderr = moeprof(*COMMANDS["replay"](given, tmp_path))
    assert (code, stdout, stderr.strip()) == (0, "", "")
    assert Run.open(tmp_path / "run").record.valid
    assert exit_code(KeyboardInterrupt()) == 130  # of the next command in this process


def test_a_signal_that_comes_while_an_older_run_is_printed_is_the_exit_code(
    moeprof: Call, strike: Strike, given: Path, tmp_path: Path
) -> None:
    assert moeprof(*COMMANDS["replay"](given, tmp_path))[0] == 0
    strike(TERM, "moeprof.cli.output.write", 1)
    assert moeprof("report", tmp_path / "run")[0] == 128 + TERM


def test_a_signal_at_the_end_of_a_run_prevents_the_next_one(moeprof: Call, strike: Strike, given: Path, tmp_path: Path) -> None:
    (given / "other.toml").write_text((given / "lm.toml").read_text())
    _, *recipes_and_more = COMMANDS["characterize"](given, tmp_path)
    strike(TERM, "moeprof.cli.running.write_reports", 1)
    code, _, stderr = moeprof("characterize", given / "other.toml", *recipes_and_more)
    assert (code, stderr.splitlines()[-1]) == (143, "moeprof: ended by SIGTERM")
    assert Run.open(tmp_path / "run" / "other").record.valid
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["other"]


def test_a_signal_before_a_run_begins_does_not_touch_an_older_one(
    moeprof: Call, strike: Strike, given: Path, tmp_path: Path
) -> None:
    replay = COMMANDS["replay"](given, tmp_path)
    assert moeprof(*replay)[0] == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    strike(TERM, "moeprof.studies.replay.study.RunWriter", 1)
    code, _, stderr = moeprof(*replay, "--force")
    assert (code, stderr.split("\n")) == (143, ["", "moeprof: ended by SIGTERM", ""])
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize(
    ("command", "where", "call", "number", "remains"),
    [
        ("baseline", "moeprof.analysis.comparison.measurement.read_measurements", 1, TERM, []),
        ("baseline", "moeprof.analysis.comparison.measurement.write_text", 1, HUP, []),
        ("train", "moeprof.studies.train.study.make_corpus", 1, HUP, []),
        ("train", "moeprof.studies.train.loop.save_state", 1, TERM, []),
        ("train", "moeprof.studies.train.own.write_checkpoint", 1, TERM, ["model.safetensors.state"]),
        ("compare", "moeprof.studies.ab_test.WorkerProcess", 1, TERM, []),
        pytest.param("compare", "moeprof.studies.ab_test.run_cases", 1, HUP, [], marks=pytest.mark.slow),
    ],
)
def test_a_signal_leaves_whole_files_or_none(
    moeprof: Call,
    strike: Strike,
    given: Path,
    tmp_path: Path,
    command: str,
    where: str,
    call: int,
    number: signal.Signals,
    remains: list[str],
) -> None:
    strike(number, where, call)
    code, stdout, stderr = moeprof(*COMMANDS[command](given, tmp_path))
    assert (code, stdout, stderr.splitlines()[-1]) == (128 + number, "", f"moeprof: {REASON[number]}")
    assert left(tmp_path) == remains


def test_both_sides_of_a_measurement_are_written_or_none(
    moeprof: Call, strike: Strike, given: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moeprof.studies.ab_test.measure_interleaved", lambda *_: ([], []))
    monkeypatch.setattr("moeprof.analysis.comparison.measurement.write_baseline", lambda path, _: path.write_text("{}"))
    strike(TERM, "moeprof.analysis.comparison.measurement.write_baseline", 2)
    assert moeprof(*COMMANDS["compare"](given, tmp_path))[0] == 143
    assert left(tmp_path) == ["sides/a.json", "sides/b.json"]
