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

LIMIT_S = 5.0
"""Processor time of one command, which does not depend on what else the machine does."""

PATIENCE_S = 60
"""Time after which a command that waits for something is ended."""

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
    with redirect_stdout(out), redirect_stderr(err), ended_after(PATIENCE_S):
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
def ended_after(seconds: int) -> Iterator[None]:
    """Ends the block with EndlessError after `seconds`."""

    def end(number: int, frame: FrameType | None) -> None:
        raise EndlessError(f"longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
