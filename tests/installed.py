"""The wheel of this checkout, and fresh environments into which it is installed."""

import os
import subprocess
import sys
from collections.abc import Collection, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, PathDistribution, distribution
from pathlib import Path
from zipfile import Path as PathInZip

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ALONE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
"""An environment in which Python finds what is installed, and nothing else."""
NO_INDEX = ALONE | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_EXTRA_INDEX_URL": ""}
"""One in which pip installs the files that it is given, and nothing else."""


def run(*command: object, cwd: Path, env: dict[str, str] = ALONE) -> subprocess.CompletedProcess[str]:
    """A command that ended, with its output as text."""
    return subprocess.run([str(word) for word in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600)


def built_wheel(folder: Path) -> Path:
    """The wheel, built as pip builds it; the test is skipped if the build backend cannot be fetched."""
    ended = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    if "No matching distribution found for hatchling" in ended.stderr:
        pytest.skip(f"the build backend cannot be fetched: {ended.stderr.strip().splitlines()[-1]}")
    assert ended.returncode == 0, ended.stderr
    (wheel,) = folder.glob("moeprof-*.whl")
    return wheel


def environment(folder: Path, wheel: Path, extras: Collection[str]) -> Path:
    """The programs of an environment of this Python that has the wheel, and of what is installed here what it asks for, linked.

    pip installs the wheel without an index, so it fails if a requirement is missing or has another version.
    """
    assert run(sys.executable, "-m", "venv", folder, cwd=folder.parent).returncode == 0
    (packages,) = folder.glob("lib/python*/site-packages")
    for package in required(metadata_of(wheel), extras):
        link(package, packages)
    asked = f"{wheel}[{','.join(extras)}]" if extras else wheel
    ended = run(folder / "bin" / "python", "-m", "pip", "install", asked, cwd=folder, env=NO_INDEX)
    assert ended.returncode == 0, ended.stderr
    return folder / "bin"


def metadata_of(wheel: Path) -> Distribution:
    """What the wheel says of itself."""
    (folder,) = (each for each in PathInZip(wheel).iterdir() if each.name.endswith(".dist-info"))
    return PathDistribution(folder)  # type: ignore[arg-type]


def required(package: Distribution, extras: Collection[str]) -> list[Distribution]:
    """The installed packages that a package needs with its extras, and that these need."""
    found: dict[tuple[str, str], Distribution] = {}
    left = list(requirements(package, extras))
    while left:
        asked = left.pop()
        key = canonicalize_name(asked.name), str(sorted(asked.extras))
        if key not in found:
            try:
                found[key] = distribution(asked.name)
            except PackageNotFoundError:
                pytest.skip(f"{asked} is not installed here")
            left += requirements(found[key], asked.extras)
    return list(found.values())


def requirements(package: Distribution, extras: Collection[str]) -> Iterator[Requirement]:
    """What a package asks for on this machine."""
    for text in package.requires or []:
        asked = Requirement(text)
        if asked.marker is None or any(asked.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield asked


def link(package: Distribution, packages: Path) -> None:
    """Links the files and folders of an installed package into another folder of packages."""
    if package.files is None:
        pytest.skip(f"{package.name} was not installed by pip: it has no list of its files")
    for name in {file.parts[0] for file in package.files} - {"..", "__pycache__"}:
        if not (packages / name).exists():
            (packages / name).symlink_to(Path(str(package.locate_file(name))))
