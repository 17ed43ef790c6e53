"""Source distributions on the package index: fetched by pip, checked by hash, kept in the cache folder."""

import hashlib
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from moeprof.records.errors import MoeprofError, UsageError, suggestion
from moeprof.records.system.files import cache_folder, reason, replacing

MAX_ARCHIVE = 64 * 2**20
"""Bytes of an archive that are read at most."""

SECONDS = 600
"""Limit on the time of a download."""

ADVICE = "Repeat the command when the package index can be reached, or give the file with --documentation PATH."


@dataclass(frozen=True)
class Distribution:
    """A release whose documentation is a training text."""

    name: str
    version: str
    sha256: str
    """Hash of its source distribution, a .tar.gz file."""

    @property
    def requirement(self) -> str:
        """The release as pip and recipes name it."""
        return f"{self.name}=={self.version}"

    @property
    def cached(self) -> Path:
        """Its path in the cache folder, where it may not be yet."""
        return cache_folder() / "documentation" / f"{self.name}-{self.version}.tar.gz"


DISTRIBUTIONS = {
    distribution.requirement: distribution
    for distribution in (Distribution("django", "5.2.19", "ad03d8abc51dbff95ebf34b27123cf0c26a3b62db7ba0cd520783686362533d1"),)
}
"""The releases that recipes may name: pip runs a release's own build script, so a recipe cannot name any other."""


def known_distribution(requirement: str) -> Distribution:
    """The release that a recipe names; UsageError if it is not one of DISTRIBUTIONS."""
    if requirement not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        raise UsageError(
            f"train.documentation {requirement}: unknown release",
            f"{suggestion(requirement, DISTRIBUTIONS)}Known are {known}.",
        )
    return DISTRIBUTIONS[requirement]


def archive(distribution: Distribution) -> bytes:
    """The source distribution, from the cache or else from the package index; MoeprofError if it cannot be fetched."""
    try:
        content = read_archive(distribution.cached)
    except OSError:
        content = b""
    if not is_of(content, distribution):
        content = fetched(distribution)
        keep(distribution, content)
    return content


def store(distribution: Distribution, path: Path) -> None:
    """Puts a file that the user has into the cache; UsageError if it is not the source distribution."""
    try:
        content = read_archive(path)
    except OSError as error:
        raise UsageError(f"--documentation {path}: {reason(error)}", wanted(distribution)) from error
    if not is_of(content, distribution):
        found = hashlib.sha256(content).hexdigest()
        raise UsageError(f"--documentation {path}: SHA-256 {found}, not {distribution.sha256}", wanted(distribution))
    keep(distribution, content)


def wanted(distribution: Distribution) -> str:
    """The remedy of a wrong file."""
    return f"Give the source distribution (.tar.gz) of {distribution.requirement} as it is on the package index."


def read_archive(path: Path) -> bytes:
    """The first MAX_ARCHIVE bytes of a file, enough to compare it with the archive."""
    with path.open("rb") as file:
        return file.read(MAX_ARCHIVE)


def is_of(content: bytes, distribution: Distribution) -> bool:
    """Whether these are the bytes of the source distribution."""
    return hashlib.sha256(content).hexdigest() == distribution.sha256


def keep(distribution: Distribution, content: bytes) -> None:
    """Writes the archive into the cache folder."""
    with replacing(distribution.cached) as partial:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)


def fetched(distribution: Distribution) -> bytes:
    """The archive from the package index that pip is configured for; pip checks the hash before it runs the build script."""
    with tempfile.TemporaryDirectory(prefix="moeprof-") as folder:
        pinned = Path(folder, "requirements.txt")
        pinned.write_text(f"{distribution.requirement} --hash=sha256:{distribution.sha256}\n", encoding="utf-8")
        download(distribution, pinned, Path(folder))
        found = [read_archive(path) for path in Path(folder).glob("*.tar.gz")]
    if len(found) != 1 or not is_of(found[0], distribution):
        raise MoeprofError(f"documentation of {distribution.requirement}: pip downloaded another file", ADVICE)
    return found[0]


def download(distribution: Distribution, pinned: Path, folder: Path) -> None:
    """Runs pip in a process of its own; MoeprofError with pip's words if it fails."""
    options = ["--no-deps", "--no-binary", distribution.name, "--require-hashes", "--requirement", str(pinned)]
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    command = [sys.executable, "-m", "pip", "download", *options, *quiet, "--dest", str(folder)]
    try:
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=SECONDS)  # noqa: S603
    except subprocess.CalledProcessError as error:
        raise unreachable(distribution, pip_s_words(error.stderr)) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise unreachable(distribution, reason(error)) from error


def unreachable(distribution: Distribution, why: str) -> MoeprofError:
    """The error of a failed download."""
    return MoeprofError(f"documentation of {distribution.requirement}: cannot be downloaded: {why}", ADVICE)


def pip_s_words(stderr: bytes) -> str:
    """The last error that pip printed, or its last line."""
    lines = [line.strip() for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip gave no reason"])[-1]
