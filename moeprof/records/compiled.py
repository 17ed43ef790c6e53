"""Loops that are compiled to machine code at their first call, and kept on disk for the next process."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """The function, compiled for this process only if no folder can be written; it releases the GIL while it runs.

    It is compiled into its callers, because passing arrays takes longer than what small functions compute.
    """
    try:
        return cast("Callable[P, R]", njit(cache=True, nogil=True, forceinline=True)(function))
    except RuntimeError:  # no folder for the cache
        return cast("Callable[P, R]", njit(nogil=True, forceinline=True)(function))
