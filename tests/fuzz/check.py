"""What must hold of every command, whatever its input is."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

from hypothesis import note

from moeprof.cli import group

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""Examples of each kind with `make fuzz`; 0 otherwise: then the examples are few, and the same in every run."""

LIMIT_S = 5.0 * 6
"""Processor time of one command: 5 s on an idle machine, and several times as much on cores that other work shares."""

ENDLESS_S = 2 * LIMIT_S
"""Processor time after which a command that computes is ended."""

PATIENCE_S = 600
"""Time after which a command that waits for something is ended, on a machine that is busy with other work too."""

EXIT_CODES = (0, 1, 2, 3, 4)


class EndlessError(BaseException):
    """A command did not end; no handler of `Exception` catches it."""


def examples(usual: int) -> dict[str, object]:
    """Settings of hypothesis: `usual` examples in `make test`."""
    return {"max_examples": EXAMPLES or usual, "derandomize": not EXAMPLES, "deadline": None, "database": None}


def assert_survives(folder: Path, *arguments: object) -> int:
    """Runs a command whose output belongs into `folder / "out"`, checks how it ends, and returns its exit code."""
    command = [str(argument) for argument in arguments]
    before, out, err = files_beside(folder), StringIO(), StringIO()
    started_s = time.process_time()
    with redirect_stdout(out), redirect_stderr(err), ended_after(ENDLESS_S, PATIENCE_S):
        code = group.run(command)
    took_s = time.process_time() - started_s
    note(f"moeprof {command}\nexit code {code}\n{err.getvalue()[-3000:]}")
    said = out.getvalue() + err.getvalue()
    assert code in EXIT_CODES
    assert took_s < LIMIT_S
    assert "Traceback" not in said
    assert "bug in moeprof" not in said
    assert "\x1b[31m" not in said
    assert files_beside(folder) == before
    if code == 2 and not err.getvalue().startswith("Usage:"):
        assert_two_lines(err.getvalue())
    return code


def assert_two_lines(said: str) -> None:
    """The error is what and where, and the remedy."""
    lines = said[said.rindex("Error: ") :].splitlines()
    assert len(lines) == 2, lines
    assert all(line.strip() for line in lines), lines


def files_beside(folder: Path) -> set[Path]:
    """Everything in the folder above, without the output folder."""
    return {path for path in folder.parent.rglob("*") if folder / "out" not in [path, *path.parents]}


@contextmanager
def new_folder() -> Iterator[Path]:
    """A new folder with an empty one around it."""
    with TemporaryDirectory() as outer:
        folder = Path(outer) / "inner"
        folder.mkdir()
        yield folder


@contextmanager
def ended_after(computing_s: float, waiting_s: float) -> Iterator[None]:
    """Ends the block with EndlessError after so much processor time, or after so much time."""

    def end(number: int, frame: FrameType | None) -> None:
        raise EndlessError(f"longer than {computing_s} s of processor time, or {waiting_s} s")

    clocks = {signal.SIGPROF: (signal.ITIMER_PROF, computing_s), signal.SIGALRM: (signal.ITIMER_REAL, waiting_s)}
    before = {number: signal.signal(number, end) for number in clocks}
    for clock, limit_s in clocks.values():
        signal.setitimer(clock, limit_s)
    try:
        yield
    finally:
        for clock, _ in clocks.values():
            signal.setitimer(clock, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
