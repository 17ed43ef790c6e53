"""The folder of files that can be created again."""

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from moeprof.records.system.files import cache_folder


def test_an_absolute_xdg_cache_home_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/cache")
    assert cache_folder() == Path("/some/cache/moeprof")


@pytest.mark.parametrize("value", ["", "cache", "./cache", "~/cache"])
def test_a_relative_xdg_cache_home_is_ignored_as_its_specification_wants(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_folder() == Path("/home/someone/.cache/moeprof")


def test_a_user_without_home_and_entry_gets_a_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert cache_folder() == Path(tempfile.gettempdir()) / f"cache-moeprof-{os.getuid()}"
