"""Tests that take the fixture `device` exist for the CPU and for CUDA, and those for CUDA are skipped without a GPU."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from tests.conftest import pytest_runtest_setup

FOLDERS = ("tests/moe", "tests/models", "tests/store", "tests/studies/passes", "tests/studies")
ROOT = Path(__file__).resolve().parents[1]


def item(*markers: str) -> pytest.Item:
    """As much of a collected test as the hook looks at."""
    return SimpleNamespace(get_closest_marker=lambda name: name in markers)  # type: ignore[return-value]


def test_a_test_for_cuda_is_skipped_without_a_gpu_and_no_other_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    pytest_runtest_setup(item("slow"))
    with pytest.raises(pytest.skip.Exception, match="no CUDA device"):
        pytest_runtest_setup(item("cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    pytest_runtest_setup(item("cuda"))


@pytest.mark.slow
def test_tests_of_layer_models_store_passes_and_studies_are_collected_for_cuda() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-m", "cuda", *FOLDERS]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    collected = [line for line in listing.splitlines() if re.search(r"\[(.*-)?cuda[-\]]", line)]
    assert all(sum(line.startswith(f"{folder}/test_") for line in collected) >= 5 for folder in FOLDERS), listing
