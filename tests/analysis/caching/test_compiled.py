"""Compiling is optional, and so is keeping what was compiled."""

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from moeprof.analysis.caching.compiled import compiled


def double(number: int) -> int:
    return 2 * number


def test_without_numba_a_function_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    assert compiled(double) is double


def test_where_nothing_can_be_kept_it_is_compiled_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*, cache: bool = False, nogil: bool) -> Callable[[Callable[..., Any]], Any]:
        def compile_(function: Callable[..., Any]) -> Any:
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return SimpleNamespace(compiled=function)

        return compile_

    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(njit=njit))
    assert compiled(double) == SimpleNamespace(compiled=double)


def test_with_numba_a_function_gives_the_same() -> None:
    pytest.importorskip("numba", reason="numba is not installed (moeprof[fast])")
    faster = compiled(double)
    assert faster is not double
    assert faster(21) == 42
