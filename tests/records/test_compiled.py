"""A compiled function gives what it gave before, and keeping what was compiled is optional."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from moeprof.records import compiled as module
from moeprof.records.compiled import compiled


def double(number: int) -> int:
    return 2 * number


def test_where_nothing_can_be_kept_it_is_compiled_for_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def njit(*, cache: bool = False, **options: bool) -> Callable[[Callable[..., Any]], Any]:
        def compile_(function: Callable[..., Any]) -> Any:
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            return SimpleNamespace(compiled=function)

        return compile_

    monkeypatch.setattr(module, "njit", njit)
    assert compiled(double) == SimpleNamespace(compiled=double)


def test_a_compiled_function_gives_the_same() -> None:
    faster = compiled(double)
    assert type(faster).__name__ == "CPUDispatcher"
    assert faster(21) == 42
