"""Loops over a trace: compiled to machine code if numba is installed (`moeprof[fast]`), plain Python otherwise."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled at its first call and cached on disk for the next process if a folder can be written.

    It is returned unchanged if numba is missing or rejects this numpy. A compiled function releases the GIL.
    """
    try:
        from numba import njit
    except ImportError:
        return function
    try:
        return cast("Callable[P, R]", njit(cache=True, nogil=True)(function))
    except RuntimeError:  # no folder for the cache
        return cast("Callable[P, R]", njit(nogil=True)(function))
