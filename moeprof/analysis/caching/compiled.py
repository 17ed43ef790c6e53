"""Loops over a trace run as machine code where numba is installed (`moeprof[fast]`), and as they are where it is not."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, compiled at its first call; kept on disk for the next process where a folder can be written.

    Unchanged without numba, or with one that refuses this numpy. Compiled, it lets other threads run meanwhile.
    """
    try:
        from numba import njit
    except ImportError:
        return function
    try:
        return cast("Callable[P, R]", njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no folder to keep it in
        return cast("Callable[P, R]", njit(nogil=True)(function))
