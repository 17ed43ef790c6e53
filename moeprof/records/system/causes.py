"""What is reported of any exception: its own two lines, the refusal of a disk or of memory, a package to install, or a bug."""

import errno
import os
import re
from traceback import walk_tb

from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.units import format_bytes

FAILURES = {
    errno.ENOSPC: "Free some space on that disk, or use a folder on another disk.",
    errno.EDQUOT: "Free some space within the quota, or use a folder on another disk.",
    errno.EFBIG: "Raise the limit of file sizes (`ulimit -f`).",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`).",
    errno.ENFILE: "Close other programs: the system has no file descriptor left.",
    errno.EIO: "Check the disk.",
    errno.ESTALE: "Run it again: the network file system has lost the file.",
}
"""Causes that can occur at any moment of a run, with their remedies."""

REFUSALS = {
    errno.EROFS: "Use a folder that can be written.",
    errno.EACCES: "Change its permissions, or use another path.",
    errno.EPERM: "Change its permissions, or use another path.",
}
"""Causes that the choice of a folder decides, with their remedies."""

MEMORY = "Use a smaller batch or model, or raise the limit of memory (`ulimit -v`, or that of the container)."
NO_MEMORY = re.compile(r"out of memory|allocate memory|bad_alloc|failed to map segment|can't start new thread", re.IGNORECASE)
"""What torch, the C++ library, the loader of shared libraries and Python's threads report."""

REQUESTED = re.compile(r"tried to allocate (\d+) bytes", re.IGNORECASE)

PACKAGES = {"pynvml": "nvidia-ml-py"}
"""Packages whose name on PyPI differs from the name of their module."""


def described(error: BaseException, remedy_for_bug: str) -> MoeprofError:
    """What is reported of any exception; one that has no other cause is a bug."""
    if found := known(error):
        return found
    message = next(iter(str(error).splitlines()), "no message")
    return MoeprofError(f"{type(error).__name__}: {message}", remedy_for_bug)


def known(error: BaseException) -> MoeprofError | None:
    """The error itself if it is one of moeprof, the machine's refusal, or the package to install; None for a bug."""
    if isinstance(error, MoeprofError):
        return error
    return refusal(error) or missing(error)


def missing(error: BaseException) -> MoeprofError | None:
    """What is reported of a package that cannot be imported; None for any other error."""
    if not isinstance(error, ImportError) or not (package := missing_package(error)):
        return None
    upgrade = "" if isinstance(error, ModuleNotFoundError) else "--upgrade "
    message = next(iter(str(error).splitlines()), "no message")
    return MoeprofError(f"package {package} cannot be imported: {message}", f"Install it: pip install {upgrade}{package}")


def missing_package(error: ImportError) -> str:
    """The package on PyPI whose module could not be imported; empty if that module is part of moeprof.

    A package that fails to load one of its own libraries is recognised by the module that raised the error.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    module = error.name or (frames[-1].f_globals.get("__name__", "") if frames else "")
    package = module.partition(".")[0]
    return "" if package == "moeprof" else PACKAGES.get(package, package.replace("_", "-"))


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out; torch has no class of its own for that on a CPU."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError | SystemError) and NO_MEMORY.search(str(error)) is not None
    )


def refusal(error: BaseException) -> MoeprofError | None:
    """What is reported if the machine has no memory, no disk space, no permission and the like; None for any other error."""
    if out_of_memory(error):
        return MoeprofError(f"out of memory{request(str(error))}", MEMORY)
    if isinstance(error, OSError) and error.errno in FAILURES | REFUSALS:
        return refused(str(error.filename or "output"), error)
    return None


def request(message: str) -> str:
    """The part of a line that says what was asked for; empty if that is unknown."""
    if found := REQUESTED.search(message):
        return f": {format_bytes(int(found[1]))} could not be allocated"
    lines = message.splitlines()
    return f": {lines[0]}" if lines else ""


def refused(what: str, error: OSError, kept: str = "") -> MoeprofError:
    """The error with its cause, its remedy, and what was kept.

    It is one of a failed run if it can occur at any moment, else one of wrong usage.
    """
    remedy = (FAILURES | REFUSALS).get(error.errno or 0, "Use a path that can be written.")
    kind = MoeprofError if error.errno in FAILURES else UsageError
    return kind(f"{what}: {system_reason(error)}", f"{remedy} {kept}".rstrip())


def system_reason(error: OSError) -> str:
    """The cause of an error in the words of the system, without those of the library that raised it."""
    return (os.strerror(error.errno) if error.errno else error.strerror or str(error)).lower()
