"""The temporary folder of a launcher: removed when it ends, or, if it was killed, by the next one."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from moeprof.records.errors import UsageError
from moeprof.records.system.files import reason
from moeprof.records.system.lock import abandoned, lock

PREFIX = "moeprof-ranks-"
"""How the name begins; a folder of this name is locked by its launcher as long as that lives."""


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A new folder in TMPDIR until the block ends. UsageError if there is none that can be written."""
    remove_abandoned()
    try:
        unnamed = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
        held = lock(unnamed)
        folder = unnamed.rename(unnamed.with_name(unnamed.name[1:]))
    except OSError as error:
        raise UsageError(
            f"folder for temporary files: {reason(error)}", "Set TMPDIR to a folder that can be written."
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del held


def remove_abandoned() -> None:
    """Removes the folders of this user's launchers that were killed."""
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                status = folder.lstat()
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid() and abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)
