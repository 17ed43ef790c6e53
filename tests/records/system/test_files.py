"""Every file is replaced in one step: whole or not at all, whatever the disk does."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from moeprof.analysis.comparison.measurement import write_baseline
from moeprof.cli.output import write_reports
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.metrics.registry import MetricRow, MetricTable
from moeprof.records.placement import Placement
from moeprof.records.run.run import Run
from moeprof.records.run.writer import write_record, write_samples
from moeprof.records.system.files import replacing, replacing_folder, write_text
from tests.records.run.runs import empty_trace, finished, record


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """The limit that `ulimit -f` sets, for this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def failure(call: Callable[[], object]) -> MoeprofError:
    with pytest.raises(MoeprofError) as caught:
        call()
    return caught.value


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    for text in ("one", "two\n"):
        write_text(tmp_path / "file", text)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": text}


def test_an_error_of_the_block_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "before")
    with pytest.raises(KeyError), replacing(tmp_path / "file") as partial:  # noqa: PT012
        partial.write_text("half")
        raise KeyError
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "before"}


@pytest.mark.parametrize("before", ["", "before"])
def test_a_file_that_becomes_too_large_is_left_whole(tmp_path: Path, before: str) -> None:
    path = tmp_path / "file"
    if before:
        path.write_text(before)
    with largest_file(1000):
        error = failure(lambda: write_text(path, "x" * 2000))
    assert (error.what, error.exit_code) == (f"{path}: cannot be written: file too large", 1)
    kept = "The file there is unchanged." if before else "Nothing was written."
    assert error.remedy == f"Raise the limit of file sizes (`ulimit -f`). {kept}"
    assert [file.read_text() for file in tmp_path.iterdir()] == ([before] if before else [])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("metrics.csv", lambda path: table().write(path)),
        ("samples.parquet", lambda path: write_samples(path.parent, [])),
        ("run.json", lambda path: write_record(path.parent, record())),
        ("report.md", lambda path: write_reports(Run(path.parent, Run.open(path.parent).record))),
        ("routing/score-static-rank0.parquet", lambda path: empty_trace().write(path)),
        ("placement.json", lambda path: Placement.contiguous(["1"], 64, 4).write(path)),
        ("baseline.json", lambda path: write_baseline(path, [])),
    ],
)
def test_a_file_of_a_run_survives_a_rewrite_that_fails(tmp_path: Path, name: str, write: Callable[[Path], object]) -> None:
    path = finished(tmp_path / "run") / name
    if not path.exists():
        path.write_text("before")
    before = contents(tmp_path)
    with largest_file(10):
        error = failure(lambda: write(path))
    assert error.what == f"{path}: cannot be written: file too large"
    assert contents(tmp_path) == before


def table() -> MetricTable:
    made = MetricTable()
    made.extend([MetricRow("capacity", 3.0, workload="lm")])
    return made


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_the_cause_is_that_of_the_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", refuse)
    error = failure(lambda: write_text(tmp_path / "file", "x"))
    assert error.what == f"{tmp_path}/file: cannot be written: {os.strerror(number).lower()}"
    assert error.exit_code == (2 if number == errno.EROFS else 1)


@pytest.mark.parametrize(
    ("name", "reason"), [("", "is a directory"), ("none/file", "no such file or directory"), ("file/below", "not a directory")]
)
def test_a_path_that_cannot_be_a_file_is_a_usage_error(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("before")
    error = failure(lambda: write_text(tmp_path / name, "x"))
    assert (error.what, error.exit_code) == (f"{tmp_path / name}: cannot be written: {reason}", 2)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    with replacing_folder(tmp_path / "new") as first:
        (first / "one").write_text("1")
    with replacing_folder(tmp_path / "new") as second:
        (second / "two").write_text("2")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"two"}
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine"), OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))])
def test_an_error_of_the_block_leaves_the_folder_as_it_was(tmp_path: Path, error: BaseException) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "one").write_text("1")

    def replace_it() -> None:
        with replacing_folder(tmp_path / "there") as new:
            (new / "two").write_text("2")
            raise error

    with pytest.raises(MoeprofError if isinstance(error, OSError) else type(error)):
        replace_it()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["one"]


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written: not a directory"), replacing_folder(tmp_path / "file" / "new"):
        pass


def test_a_device_is_written_and_never_replaced() -> None:
    error = failure(lambda: write_text(Path("/dev/full"), "x"))
    assert error.what == "/dev/full: cannot be written: no space left on device"
    write_text(Path("/dev/null"), "x")
    assert [path.is_char_device() for path in map(Path, ("/dev/full", "/dev/null"))] == [True, True]
    assert not list(Path("/dev").glob("*.partial"))


def test_the_file_behind_a_link_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    for text in ("new", "newer"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "folder" / "file").read_text() == text
    assert (tmp_path / "link").is_symlink()


def test_reports_that_cannot_be_written_leave_the_run_valid_and_name_the_command_that_prints_them(tmp_path: Path) -> None:
    run = Run.open(finished(tmp_path / "run"))
    with largest_file(10):
        error = failure(lambda: write_reports(run))
    assert error.what == f"{run.path}/report.md: cannot be written: file too large"
    assert error.remedy.endswith(f"The run itself is kept: `moeprof report {run.path}` prints its report.")
    assert Run.open(run.path).record.valid
