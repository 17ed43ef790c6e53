"""Replacement of files in one step, which is how every file is written, and one-line descriptions of what is wrong with one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

import moeprof
from moeprof.records.errors import UsageError, escaped
from moeprof.records.system.causes import refused, system_reason

PARTIAL = ".partial"
PAGE = 4096
"""Alignment of direct I/O: an expert on disk and in a cache slot takes whole pages of this many bytes."""


def cache_folder() -> Path:
    """The folder of files that moeprof can create again, below XDG_CACHE_HOME or ~/.cache.

    A relative XDG_CACHE_HOME is ignored, as its specification wants. A user without a home gets a folder for temporary files.
    """
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "moeprof"
    try:
        return Path.home() / ".cache" / "moeprof"
    except RuntimeError:  # no HOME, and no entry in the list of users
        return Path(tempfile.gettempdir()) / f"cache-moeprof-{os.getuid()}"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path to write to, which replaces `path` only if the block succeeds; a link is followed, a device written itself.

    MoeprofError with the cause if the system refuses; a file that was there is unchanged then.
    """
    try:
        if path.exists() and not path.is_file():
            yield path
        else:
            with replacing_file(Path(os.path.realpath(path))) as partial:
                yield partial
    except OSError as error:
        kept = "The file there is unchanged." if os.access(path, os.F_OK) else "Nothing was written."
        raise refused(f"{path}: cannot be written", error, kept) from error


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """A path beside a file, or beside none, which takes its place only if the block succeeds."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, which takes the place of what is there only if the block succeeds; errors as in `replacing`."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir()
        yield partial
        if path.exists():
            shutil.rmtree(path)
        partial.rename(path)
    except OSError as error:
        kept = "The folder there is unchanged." if path.exists() else "Nothing was written."
        raise refused(f"{path}: cannot be written", error, kept) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Replaces a file in one step; errors as in `replacing`. Bytes of a path that is not UTF-8 become `\\udcff`."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def refuse_newer(what: str, document: object, schema: int) -> None:
    """UsageError if a document was written by a newer moeprof with a schema that is not known here."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(document, dict) and isinstance(version, int) and version > schema:
        raise UsageError(
            f"{what}: written by moeprof {document.get('moeprof_version')} with schema {version}; "
            f"moeprof {moeprof.__version__} reads up to schema {schema}",
            "Upgrade moeprof to read it.",
        )


def reason(error: Exception) -> str:
    """The cause of an error in one line, without the path of the file."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        where = ".".join(escaped(str(part)) for part in first["loc"] if part != "[key]")
        message = first["msg"].lower().replace("input should be", "must be")
        own = first["ctx"]["error"] if first["type"] == "value_error" else message
        return ": ".join(filter(None, (where, str(own))))
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, OSError) and error.strerror:
        return system_reason(error)
    return next(iter(str(error).splitlines()), type(error).__name__)
