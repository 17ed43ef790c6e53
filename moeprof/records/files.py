"""Files that are whole or not there, and one line for what is wrong with one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

import moeprof
from moeprof.records.errors import UsageError

PARTIAL = ".partial"
PAGE = 4096
"""What direct I/O moves at least: an expert on disk and in a slot takes whole pages."""


def cache_folder() -> Path:
    """Where moeprof keeps what can be made again; XDG_CACHE_HOME is respected."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "moeprof"


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `path` only when the block ends well."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def refuse_newer(what: str, document: object, schema: int) -> None:
    """UsageError where a document that moeprof wrote has a schema above the one that is known here."""
    version = document.get("schema_version") if isinstance(document, dict) else None
    if isinstance(document, dict) and isinstance(version, int) and version > schema:
        raise UsageError(
            f"{what}: written by moeprof {document.get('moeprof_version')} with schema {version}, "
            f"this is {moeprof.__version__} with schema {schema}",
            "Upgrade moeprof to read it.",
        )


def reason(error: Exception) -> str:
    """What went wrong, in one line and without the file's path."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"].lower())))
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return next(iter(str(error).splitlines()), type(error).__name__)
