"""One run of a small model, which all tests of the page read."""

import pytest

from moeprof.cli import group
from moeprof.records.run.run import Run
from moeprof.reporters.page.page import render
from tests.conftest import MICRO


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Dynamic gating against static gating, with a search for the largest batch."""
    folder = tmp_path_factory.mktemp("page")
    recipe = folder / "lm-micro.toml"
    recipe.write_text(MICRO["lm"])
    settings = ("--set", "budget.memory=300KiB", "--set", "measure.rounds=6", "--quiet")
    code = group.run(["optimize", str(recipe), "--dynamic-gating", *settings, "--out", str(folder / "run")])
    assert code == 0
    return Run.open(folder / "run")


@pytest.fixture(scope="package")
def page(run: Run) -> str:
    """Its page, which is read only."""
    return render([run])
