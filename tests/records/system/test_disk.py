"""The file system of a folder, as the operating system reports it."""

import os
import subprocess
from pathlib import Path

import pytest

from moeprof.records.system import disk
from moeprof.records.system.disk import file_system, why_no_slow_tier


def test_the_file_system_is_the_one_that_the_system_names(tmp_path: Path) -> None:
    asked = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout.strip()
    assert file_system(tmp_path).removesuffix("4") in asked


def test_a_folder_in_memory_is_no_slow_tier() -> None:
    if file_system(Path("/dev/shm")) != "tmpfs":
        pytest.skip("no tmpfs at /dev/shm")
    assert why_no_slow_tier(Path("/dev/shm/not/yet/there")) == "/dev/shm is on tmpfs, which keeps files in memory"


def test_a_folder_on_a_disk_is_one_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    if file_system(tmp_path) in disk.RAM:
        pytest.skip("temporary files are in memory here")
    assert why_no_slow_tier(tmp_path / "not" / "yet") == ""
    assert not any(tmp_path.iterdir())


def test_a_file_system_or_a_system_without_direct_io_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "file_system", lambda _: "nfs")
    usual = os.open

    def refusing(path: str, flags: int, *rest: int) -> int:
        if flags & os.O_DIRECT:
            raise OSError(22, "Invalid argument")
        return usual(path, flags, *rest)

    monkeypatch.setattr(os, "open", refusing)
    assert why_no_slow_tier(tmp_path) == f"files in {tmp_path} do not support direct I/O (invalid argument)"
    monkeypatch.setattr(disk, "DIRECT", 0)
    assert why_no_slow_tier(tmp_path) == "this system has no direct I/O"
