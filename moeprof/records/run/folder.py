"""The folder of a run: made in one step, written by one process at a time, and never one that holds something else."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.run.run import CONTENTS
from moeprof.records.system.files import PARTIAL, reason
from moeprof.records.system.lock import Lock, lock
from moeprof.records.system.signals import delayed

FIRST = f"run.json{PARTIAL}"
"""The first file of a run."""


@contextmanager
def output_folder(name: str, command: str, out: Path | None) -> Iterator[Path]:
    """The folder `out` of a command, or a new one in `reports/`; a new one is removed again if nothing was written to it."""
    new = out is None or not out.exists()
    folder = out
    try:
        if folder is None:
            with delayed():
                folder = new_folder(name, command)
        yield folder
    finally:
        if new and folder:
            with suppress(OSError):
                folder.rmdir()


def new_folder(name: str, command: str) -> Path:
    """Makes `reports/<name>-<command>-<UTC time>`, with a number appended if another process has made that."""
    first = Path("reports") / f"{name}-{command}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = chain([first], (first.with_name(f"{first.name}-{number}") for number in count(2)))
    with usable(first):
        first.parent.mkdir(exist_ok=True)
        return next(folder for folder in names if made(folder.mkdir))


def made(make: Callable[..., None]) -> bool:
    """Makes a file or folder; False if it exists, perhaps since a moment ago."""
    try:
        make(exist_ok=False)
    except FileExistsError:
        return False
    return True


def claim(path: Path, *, force: bool) -> Lock:
    """Begins a run in `path` by making the file that becomes `run.json`; UsageError if it is taken, or another process begins one.

    The file and not the lock decides, because not every disk has locks. Whoever makes the file and finds another one was late.
    """
    held = emptied(path, force=force)
    with usable(path):
        begun = path / FIRST
        if not made(begun.touch):
            raise taken(path)
        if any(entry.name != FIRST for entry in path.iterdir()):
            begun.unlink()
            raise taken(path)
    return held


def emptied(path: Path, *, force: bool) -> Lock:
    """Makes an empty folder for a run; with `force` an older run there is removed, but never anything that is not a run."""
    with usable(path):
        if path.exists() and not path.is_dir():
            raise taken(path)
        path.mkdir(parents=True, exist_ok=True)
        held = locked(path)
        if any(path.iterdir()):
            refuse_to_replace(path, force=force)
            for entry in path.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return held


def locked(folder: Path) -> Lock:
    """A lock on an output folder; UsageError if another process writes there."""
    try:
        return lock(folder)
    except BlockingIOError:
        raise UsageError(
            f"output folder {folder}: another process is writing there", "Wait until it has ended, or use another --out."
        ) from None


@contextmanager
def alone_in(path: Path) -> Iterator[None]:
    """Makes the folder, and keeps other processes from writing there until the block ends."""
    with usable(path):
        path.mkdir(parents=True, exist_ok=True)
        held = locked(path)
    yield
    del held


def refuse_to_replace(path: Path, *, force: bool) -> None:
    """UsageError unless `--force` may remove what is in the folder."""
    if not force:
        raise taken(path)
    if path.is_symlink():
        raise UsageError(
            f"output folder {path}: it is a link to {path.readlink()}, and --force removes nothing through a link",
            f"Use --out {path.resolve()} to replace the run there, or remove the link.",
        )
    if why := not_a_run(path):
        raise UsageError(f"output folder {path}: {why}", "Use another --out; --force replaces only runs.")


def taken(path: Path) -> UsageError:
    """The error for a folder, or a file, that is not to be overwritten."""
    return UsageError(f"output folder {path}: it exists already", "Use another --out, or --force to replace it.")


def not_a_run(path: Path) -> str:
    """Why `path` must not be replaced by a run; empty if it holds a run and nothing else."""
    file, names = path / "run.json", [entry.name for entry in path.iterdir()]
    if names == [FIRST]:
        return ""
    if not file.is_file() or b'"moeprof_version"' not in file.read_bytes():
        return "it exists and is not a run"
    foreign = sorted(name for name in names if name.removesuffix(PARTIAL) not in CONTENTS)
    return f"it contains {foreign[0]!r}, which is not part of a run" if foreign else ""


@contextmanager
def usable(path: Path) -> Iterator[None]:
    """Turns what the system refuses in the block into a UsageError that names the folder."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"output folder {path}: {reason(error)}", "Use an --out folder that can be written.") from error
