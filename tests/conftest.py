"""Fixtures that several rooms share."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture
def shared_data() -> Path:
    """Real text, traces and reference results beside the checkout; the test is skipped where they are absent."""
    if not (SHARED_DATA / "README.md").is_file():
        pytest.skip(f"no third-party data at {SHARED_DATA}")
    return SHARED_DATA
