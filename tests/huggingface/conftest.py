"""Tests of this package need the extra `moeprof[hf]`."""

import pytest


def pytest_pycollect_makemodule() -> None:
    """Skips every module of this folder, with the reason, if transformers cannot be imported."""
    pytest.importorskip("transformers", reason="needs the extra moeprof[hf]")
