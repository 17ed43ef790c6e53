"""Made-up source distributions, with a build script of their own that needs no other package."""

import hashlib
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from moeprof.workloads.documentation import source, store
from moeprof.workloads.documentation.source import Distribution

PROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
MARK = "MADE_UP_BUILD_MARK"
"""Environment variable with the path of a file that the build script makes."""

BACKEND = f"""
import os
from pathlib import Path

def prepare_metadata_for_build_wheel(folder, config_settings=None):
    if mark := os.environ.get("{MARK}"):
        Path(mark).touch()
    made = Path(folder, "guide-1.0.dist-info")
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: guide\\nVersion: 1.0\\n")
    return made.name
"""


def packed(members: Mapping[str, str]) -> bytes:
    """A .tar.gz archive of texts by path."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return content.getvalue()


def release(folder: Path, documents: Mapping[str, str]) -> tuple[Distribution, Path]:
    """The source distribution of guide 1.0 with files below `docs`, written into a folder."""
    info = {"pyproject.toml": PROJECT, "backend.py": BACKEND, "PKG-INFO": "Metadata-Version: 2.1\nName: guide\nVersion: 1.0\n"}
    texts = {f"docs/{name}": text for name, text in documents.items()}
    content = packed({f"guide-1.0/{name}": text for name, text in (info | texts).items()})
    path = folder / "guide-1.0.tar.gz"
    path.write_bytes(content)
    return Distribution("guide", "1.0", hashlib.sha256(content).hexdigest()), path


def known_guide(folder: Path, patch: pytest.MonkeyPatch, documents: Mapping[str, str]) -> Path:
    """Makes `guide==1.0` a release that recipes may name, with an empty cache; the path of its archive."""
    guide, path = release(folder, documents)
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    patch.setitem(source.DISTRIBUTIONS, guide.requirement, guide)
    return path


def stored_guide(folder: Path, patch: pytest.MonkeyPatch, documents: Mapping[str, str]) -> None:
    """As `known_guide`, with the archive in the cache."""
    path = known_guide(folder, patch, documents)
    store(source.DISTRIBUTIONS["guide==1.0"], path)


PAGES = {f"page{number:02d}.txt": f"The page with number {number} has a line of its own.\n" for number in range(60)}
"""Documents of which each part has some."""
