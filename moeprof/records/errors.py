"""The two classes of errors for users: the first line says what is wrong and where, the second line gives the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches
from traceback import walk_tb

PACKAGES = {"pynvml": "nvidia-ml-py"}
"""Packages whose name on PyPI differs from the name of their module."""


class MoeprofError(Exception):
    """A run failed; the command exits with 1."""

    exit_code = 1

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n{remedy}")
        self.what = what
        self.remedy = remedy


class UsageError(MoeprofError):
    """The command line, a recipe or an input file is not valid; the command exits with 2."""

    exit_code = 2


def suggestion(word: str, known: Iterable[str]) -> str:
    """`Did you mean 'x'? ` for the most similar known word, or an empty string."""
    nearest = get_close_matches(word, list(known), n=1)
    return f"Did you mean {nearest[0]!r}? " if nearest else ""


def described(error: BaseException, remedy_for_bug: str) -> MoeprofError:
    """What is reported of any exception: its own two lines, the package to install if one is missing, else a bug."""
    if isinstance(error, MoeprofError):
        return error
    message = next(iter(str(error).splitlines()), "no message")
    if isinstance(error, ImportError) and (package := missing_package(error)):
        upgrade = "" if isinstance(error, ModuleNotFoundError) else "--upgrade "
        return MoeprofError(f"package {package} cannot be imported: {message}", f"Install it: pip install {upgrade}{package}")
    return MoeprofError(f"{type(error).__name__}: {message}", remedy_for_bug)


def missing_package(error: ImportError) -> str:
    """The package on PyPI whose module could not be imported; empty if that module is part of moeprof.

    A package that fails to load one of its own libraries is recognised by the module that raised the error.
    """
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    module = error.name or (frames[-1].f_globals.get("__name__", "") if frames else "")
    package = module.partition(".")[0]
    return "" if package == "moeprof" else PACKAGES.get(package, package.replace("_", "-"))
