"""Signals at random points of every long command: documented exit codes, readable runs, and nothing left behind."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from moeprof.cli import group
from moeprof.records.run.run import Run
from moeprof.records.system.files import PARTIAL
from moeprof.records.system.signals import ENDINGS
from tests.cli.smallest import COMMANDS, prepare

POINTS = 20
PATIENCE_S = 300
RANKED = {"characterize --ranks 2": lambda given, out: [*COMMANDS["characterize"](given, out), "--ranks", 2]}

REASON = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM", signal.SIGHUP: "ended by SIGHUP"}


@dataclass(frozen=True)
class Ended:
    """How a command ended, to which a signal was sent."""

    number: signal.Signals
    after_s: float
    code: int
    stderr: str


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands read."""
    return prepare(tmp_path_factory.mktemp("given"))


def start(arguments: list[object], folder: Path) -> "subprocess.Popen[str]":
    """A command in a session of its own, whose environment names the folder and whose temporary files are in it."""
    (folder / "tmp").mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-m", "moeprof", *map(str, arguments)],
        env=os.environ | {"TMPDIR": str(folder / "tmp"), "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def struck(arguments: list[object], folder: Path, number: signal.Signals, after_s: float) -> Ended:
    """Sends a signal after a while to the process group, as a terminal does, or to the command alone, as a supervisor does."""
    process = start(arguments, folder)
    try:
        time.sleep(after_s)
        if process.poll() is None:
            os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, stderr = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    return Ended(number, after_s, process.returncode, stderr)


def processes_of(folder: Path) -> list[str]:
    """The command lines of processes whose environment names the folder."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder).encode() in environment.read_bytes():
                found.append((environment.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return found


@pytest.mark.fuzz
@pytest.mark.parametrize("command", [*COMMANDS, *RANKED])
def test_a_signal_at_any_time_ends_a_command_as_documented(command: str, given: Path, tmp_path: Path) -> None:
    words, chance = (COMMANDS | RANKED)[command], Random(command)
    started = time.monotonic()
    start(words(given, tmp_path / "whole"), tmp_path / "whole").communicate(timeout=PATIENCE_S)
    whole_s = time.monotonic() - started
    for point in range(POINTS):
        folder = tmp_path / str(point)
        ended = struck(words(given, folder), folder, chance.choice(ENDINGS), chance.uniform(0, 1.05) * whole_s)
        assert_documented(ended, folder)
        assert_whole(ended, folder)


def assert_documented(ended: Ended, folder: Path) -> None:
    """The signal ended the command, or came when it had done its work, or before Python could handle it."""
    assert ended.code in (0, 128 + ended.number, -ended.number), ended
    if ended.code > 0:
        assert ended.stderr.splitlines()[-1] == f"moeprof: {REASON[ended.number]}", ended
        assert "Traceback" not in ended.stderr, ended
    assert processes_of(folder) == [], ended
    assert list((folder / "tmp").iterdir()) == [], ended
    assert list(folder.rglob(f"*{PARTIAL}")) == [], ended


def assert_whole(ended: Ended, folder: Path) -> None:
    """A run says the same as the exit code, and can be reported; sides of a measurement come in pairs."""
    run = folder / "run"
    assert len(list(folder.glob("sides/*.json"))) in (0, 2), ended
    if run.exists():
        record = Run.open(run).record
        reasons = [] if ended.code == 0 else [REASON[ended.number]]
        assert (record.valid, record.reasons) == (ended.code == 0, reasons), ended
        assert group.run(["report", str(run)]) == 0, ended
