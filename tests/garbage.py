"""What the rooms that run studies share: little for the collector to look at."""

import gc
from collections.abc import Iterator
from importlib import import_module

import pytest

IMPORTED_LATE = ("pandas", "sacrebleu", "scipy.stats", "torch._dynamo", "torch.profiler")
"""By a study's passes; together hundreds of thousands of objects."""


@pytest.fixture(scope="package", autouse=True)
def little_garbage() -> Iterator[None]:
    """Timed rounds begin with a full collection, and what pytest and torch hold makes each one last 0.2 s: it is set aside."""
    for name in IMPORTED_LATE:
        import_module(name)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
