"""The temporary folder of a launcher does not outlive it for long, even if it was killed."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moeprof.parallel.scratch import scratch_folder
from moeprof.records.errors import UsageError

LAUNCHER = """
import sys
from moeprof.parallel.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "0").mkdir()
    print(folder, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@contextmanager
def launcher() -> Iterator[tuple["subprocess.Popen[str]", Path]]:
    """Another process with a folder of its own, which holds something."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
        process.kill()


def test_it_is_removed_when_the_block_ends(temporary: Path) -> None:
    with pytest.raises(KeyError), scratch_folder() as folder:  # noqa: PT012
        (folder / "log").write_text("x")
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_that_of_a_killed_launcher_is_removed_by_the_next_and_that_of_a_living_one_is_not(temporary: Path) -> None:
    with launcher() as (killed, left), launcher() as (_, living):
        killed.kill()
        killed.wait()
        assert left.is_dir()
        with scratch_folder() as own:
            assert set(temporary.iterdir()) == {own, living}


def test_a_launcher_does_not_remove_its_own(temporary: Path) -> None:
    with scratch_folder() as first, scratch_folder() as second:
        assert set(temporary.iterdir()) == {first, second}


def test_only_folders_of_launchers_of_this_user_are_removed(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (temporary / "moeprof-results").mkdir()
    (temporary / "moeprof-ranks-file").touch()
    (temporary / "moeprof-ranks-link").symlink_to("moeprof-results")
    kept = set(temporary.iterdir())
    (temporary / "moeprof-ranks-left").mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(os, "getuid", lambda: temporary.stat().st_uid + 1)
        with scratch_folder():
            pass
    assert set(temporary.iterdir()) == kept | {temporary / "moeprof-ranks-left"}
    with scratch_folder():
        pass
    assert set(temporary.iterdir()) == kept


def test_no_place_for_temporary_files_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    with pytest.raises(UsageError, match="folder for temporary files: no space left on device"), scratch_folder():
        pass
