"""A release's documentation comes from the index that pip is configured for, once, and only if its hash is right."""

from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.records.errors import MoeprofError, UsageError
from moeprof.workloads.documentation.source import Distribution, archive, known_distribution, store

from .releases import MARK, release

GUIDE = {"intro.txt": "Welcome to the guide.\n"}


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that serves as pip's index; there is no network, and the cache is empty."""
    folder = tmp_path / "index"
    folder.mkdir()
    settings = {
        "XDG_CACHE_HOME": tmp_path / "cache",
        "PIP_CONFIG_FILE": "/dev/null",
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": folder,
        "PIP_EXTRA_INDEX_URL": "",
        MARK: tmp_path / "ran",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    return folder


def test_pip_downloads_it_once_and_the_cache_serves_it_then(index: Path, tmp_path: Path) -> None:
    guide, path = release(index, GUIDE)
    expected = path.read_bytes()
    assert archive(guide) == expected
    assert (tmp_path / "ran").exists()  # pip runs the build script even of what it only downloads
    path.unlink()
    assert archive(guide) == expected
    assert guide.cached.read_bytes() == expected


def test_a_damaged_file_in_the_cache_is_downloaded_again(index: Path) -> None:
    guide, path = release(index, GUIDE)
    guide.cached.parent.mkdir(parents=True)
    guide.cached.write_bytes(b"half of")
    assert archive(guide) == path.read_bytes() == guide.cached.read_bytes()


def test_an_archive_with_another_hash_is_refused_before_its_build_script_runs(index: Path, tmp_path: Path) -> None:
    guide, _ = release(index, GUIDE)
    pinned = replace(guide, sha256="0" * 64)
    with pytest.raises(MoeprofError) as raised:
        archive(pinned)
    assert raised.value.what.startswith(
        "documentation of guide==1.0: cannot be downloaded: THESE PACKAGES DO NOT MATCH THE HASHES"
    )
    assert "--documentation PATH" in raised.value.remedy
    assert not pinned.cached.exists()
    assert not (tmp_path / "ran").exists()


def test_without_a_network_the_error_says_what_pip_says_and_how_to_go_on() -> None:
    with pytest.raises(MoeprofError) as raised:
        archive(Distribution("guide", "1.0", "0" * 64))
    assert raised.value.exit_code == 1
    assert raised.value.what == (
        "documentation of guide==1.0: cannot be downloaded: No matching distribution found for guide==1.0"
    )
    assert "give the file with --documentation PATH" in raised.value.remedy


def test_a_file_of_the_user_is_stored_if_it_is_the_release(tmp_path: Path) -> None:
    guide, path = release(tmp_path, GUIDE)
    store(guide, path)
    assert archive(guide) == path.read_bytes()


def test_another_file_of_the_user_is_refused_with_both_hashes(tmp_path: Path) -> None:
    guide, path = release(tmp_path, GUIDE)
    other = replace(guide, sha256="f" * 64)
    with pytest.raises(UsageError, match=f"SHA-256 {guide.sha256}, not {'f' * 64}"):
        store(other, path)
    with pytest.raises(UsageError, match="no such file"):
        store(guide, tmp_path / "missing.tar.gz")
    assert not other.cached.exists()


def test_a_recipe_cannot_name_a_release_without_a_known_hash() -> None:
    with pytest.raises(UsageError, match=r"train\.documentation django==9\.9: unknown release"):
        known_distribution("django==9.9")
