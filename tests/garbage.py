"""A fixture for packages that run studies: full garbage collections take little time."""

import gc
from collections.abc import Iterator
from importlib import import_module

import pytest

IMPORTED_LATE = ("pandas", "sacrebleu", "scipy.stats", "torch._dynamo", "torch.profiler")
"""Packages that passes import when they run; together hundreds of thousands of objects."""


@pytest.fixture(scope="package", autouse=True)
def little_garbage() -> Iterator[None]:
    """Freezes the objects of pytest and torch, which make each full collection before timed rounds last 0.2 s."""
    for name in IMPORTED_LATE:
        import_module(name)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
