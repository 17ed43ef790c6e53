"""A run has a folder of its own, however many begin at once, and nothing is removed for it but an older run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moeprof.records.run.folder import output_folder
from moeprof.records.run.run import Run
from moeprof.records.run.writer import RunWriter
from tests.records.run.runs import fault, finished, record

# Claiming


def test_a_new_or_an_empty_folder_is_claimed_with_its_parents(tmp_path: Path) -> None:
    RunWriter(tmp_path / "a" / "b" / "run", record())
    (tmp_path / "empty").mkdir()
    RunWriter(tmp_path / "empty", record())
    assert not Run.open(tmp_path / "empty").record.valid


def test_an_older_run_is_kept_unless_forced(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert fault(lambda: RunWriter(path, record())) == f"output folder {path}: it exists already"
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


def test_force_replaces_an_older_run_wholly(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    RunWriter(path, record(), force=True)
    assert [file.name for file in path.rglob("*")] == ["run.json"]
    assert not Run.open(path).record.valid


def test_force_replaces_an_interrupted_run_and_one_with_reports(tmp_path: Path) -> None:
    RunWriter(tmp_path / "run", record())
    (tmp_path / "run" / "report.md").write_text("# report")
    RunWriter(tmp_path / "run", record(), force=True)
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["run.json"]


def test_force_never_removes_a_folder_that_holds_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for force in (False, True):
        fault(lambda force=force: RunWriter(tmp_path, record(), force=force))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_force_never_removes_a_folder_with_the_run_file_of_another_tool(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"scripts": {"start": "node run.js"}}')
    (tmp_path / "thesis.txt").write_text("years of work")
    fault(lambda: RunWriter(tmp_path, record(), force=True))
    assert (tmp_path / "thesis.txt").exists()


def test_force_never_removes_what_lies_in_a_run_but_is_not_of_it(tmp_path: Path) -> None:
    path = finished(tmp_path / "run")
    (path / "thesis.txt").write_text("years of work")
    fault(lambda: RunWriter(path, record(), force=True))
    assert (path / "thesis.txt").exists()


@pytest.mark.parametrize("force", [False, True])
def test_a_file_is_no_output_folder(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("x")
    assert fault(lambda: RunWriter(tmp_path / "file", record(), force=force)).startswith(f"output folder {tmp_path}/file: ")
    assert (tmp_path / "file").read_text() == "x"


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    what = fault(lambda: RunWriter(tmp_path / "file" / "run", record()))
    assert what == f"output folder {tmp_path}/file/run: not a directory"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    what = fault(lambda: RunWriter(tmp_path / "locked" / "run", record()))
    assert what == f"output folder {tmp_path}/locked/run: permission denied"


def test_a_link_to_a_run_is_not_followed_by_force(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    fault(lambda: RunWriter(tmp_path / "link", record(), force=True))
    assert Run.open(tmp_path / "run").record.valid


def test_the_error_names_the_folder_behind_a_link(tmp_path: Path) -> None:
    finished(tmp_path / "run")
    (tmp_path / "link").symlink_to("run")
    what = fault(lambda: RunWriter(tmp_path / "link", record(), force=True))
    assert what == f"output folder {tmp_path}/link: it is a link to run, and --force removes nothing through a link"


def test_a_link_to_an_empty_folder_is_one(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    RunWriter(tmp_path / "link", record())
    assert not Run.open(tmp_path / "empty").record.valid


def test_force_replaces_a_run_that_was_killed_at_its_first_file(tmp_path: Path) -> None:
    (tmp_path / "run.json.partial").touch()
    RunWriter(tmp_path, record(), force=True)
    assert [file.name for file in tmp_path.iterdir()] == ["run.json"]


# Default folders


def test_a_new_folder_is_named_by_recipe_command_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with output_folder("lm-tiny", "characterize", None) as folder:
        assert folder.is_dir()
        assert folder.match("reports/lm-tiny-characterize-20[0-9][0-9]*T*Z")


@pytest.mark.parametrize("used", [True, False])
def test_a_new_folder_stays_only_if_something_is_written_to_it(tmp_path: Path, used: bool) -> None:
    with pytest.raises(KeyError), output_folder("lm-tiny", "characterize", tmp_path / "run"):  # noqa: PT012
        if used:
            RunWriter(tmp_path / "run", record())
        else:
            (tmp_path / "run").mkdir()
        raise KeyError
    assert (tmp_path / "run").exists() == used


def test_an_empty_folder_that_was_there_stays(tmp_path: Path) -> None:
    with output_folder("lm-tiny", "characterize", tmp_path):
        pass
    assert tmp_path.exists()


# Several processes at once

PROCESSES, FOLDERS = 3, 12

BEGIN = """
import errno, fcntl, sys
from pathlib import Path
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.folder import new_folder
from moeprof.records.run.run import RunRecord
from moeprof.records.run.writer import RunWriter

def no_locks(*_):
    raise OSError(errno.ENOLCK, "No locks available")

if "no-locks" in sys.argv:
    fcntl.flock = no_locks
recipe, writers = load_recipe("lm-tiny"), []
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[1])):
    try:
        folder = new_folder("lm-tiny", "characterize") if "new" in sys.argv else Path(str(number))
        writers.append(RunWriter(folder, RunRecord(command="characterize", recipe=recipe), force="force" in sys.argv))
        print(folder)
    except UsageError as error:
        print(error.what, file=sys.stderr)
sys.stdout.flush()
sys.stdin.readline()
"""
"""Begins runs, in new folders or in those named 0, 1, ..., prints the folders, and ends with the second line of stdin."""


def begin(folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    """A process that is ready to begin runs."""
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN, *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def begun_at_once(folder: Path, *arguments: object) -> list[tuple[list[str], list[str]]]:
    """The folders in which each of several processes begins a run, and its errors."""
    processes = [begin(folder, FOLDERS, *arguments) for _ in range(PROCESSES)]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [[text.splitlines() for text in process.communicate()] for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    return [(out, errors) for out, errors in said]


def test_every_run_of_several_processes_gets_a_new_folder(tmp_path: Path) -> None:
    begun = begun_at_once(tmp_path, "new")
    assert [errors for _, errors in begun] == [[]] * PROCESSES
    folders = [folder for out, _ in begun for folder in out]
    assert len(set(folders)) == PROCESSES * FOLDERS
    assert all((tmp_path / folder / "run.json").is_file() for folder in folders)


@pytest.mark.parametrize("mode", ["locks", "no-locks"])
def test_one_of_several_processes_begins_a_run_in_an_empty_folder(tmp_path: Path, mode: str) -> None:
    begun = begun_at_once(tmp_path, mode)
    assert sorted(folder for out, _ in begun for folder in out) == sorted(map(str, range(FOLDERS)))
    refused = [error for _, errors in begun for error in errors]
    assert len(refused) == (PROCESSES - 1) * FOLDERS
    reasons = {error.partition(": ")[2] for error in refused}
    assert reasons <= {"it exists already", "another process is writing there"}


def test_force_does_not_replace_a_run_that_another_process_is_writing(tmp_path: Path) -> None:
    with begin(tmp_path, 1) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        assert [process.stdout.readline() for _ in range(2)] == ["ready\n", "0\n"]
        before = (tmp_path / "0" / "run.json").stat()
        what = fault(lambda: RunWriter(tmp_path / "0", record(), force=True))
        assert what == f"output folder {tmp_path}/0: another process is writing there"
        assert (tmp_path / "0" / "run.json").stat() == before
        process.stdin.close()
        process.wait()
        RunWriter(tmp_path / "0", record(), force=True)
