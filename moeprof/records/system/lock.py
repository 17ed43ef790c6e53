"""Locks on folders: one process at a time writes there."""

import fcntl
import os
from pathlib import Path
from weakref import WeakValueDictionary


class Lock:
    """Keeps other processes from a folder until it is deleted, or its process ends; without effect if the disk has no locks."""

    descriptor = -1

    def __init__(self, folder: Path) -> None:
        self.descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return

    def __del__(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)


HELD: "WeakValueDictionary[tuple[int, int], Lock]" = WeakValueDictionary()
"""The locks of this process, by device and inode."""


def lock(folder: Path) -> Lock:
    """The lock of a folder, one for all of this process; BlockingIOError if another process has it."""
    status = folder.stat()
    key = status.st_dev, status.st_ino
    found = HELD.get(key) or Lock(folder)
    HELD[key] = found
    return found


def held_elsewhere(folder: Path) -> bool:
    """Whether another process has the lock of an existing folder."""
    try:
        lock(folder)
    except BlockingIOError:
        return True
    return False


def abandoned(folder: Path) -> bool:
    """Whether the process that had the lock of a folder has ended; False if the disk has no locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
