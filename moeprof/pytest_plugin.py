"""The pytest fixture `moe_recording`, available in every test where moeprof is installed."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def moe_recording() -> Callable[..., Any]:
    """`moeprof.record`: `with moe_recording(model) as recording: model(...)`, then `recording.counts()`."""
    import moeprof

    return moeprof.record
