"""Several runs are one document in every format."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.records.metrics.registry import COLUMNS
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run
from moeprof.reporters.formats.registry import FORMATS, render, render_all
from moeprof.studies.characterize import characterization

NAMES = ("plain", "'=1+1")
"""The runs in a CSV, where no name is a formula."""


@pytest.fixture
def runs(micro: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Two runs, of which one lies in a folder whose name a spreadsheet would execute."""
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(str(micro("lm")), ['load.phases=["score"]', "load.batches=1", 'data.domains=["prose"]'])
    return [characterization().run(recipe, Path(name)) for name in ("plain", "=1+1")]


def test_csv_of_several_runs_has_one_header_and_a_column_of_runs(runs: list[Run]) -> None:
    header, *rows = csv.reader(io.StringIO(render_all(runs, "csv")))
    assert header == ["run", *COLUMNS]
    assert [row[0] for row in rows] == [name for run, name in zip(runs, NAMES, strict=True) for _ in range(len(run.metrics))]
    assert all(len(row) == len(header) for row in rows)
    assert [row[1:] for row in rows if row[0] == "plain"] == list(csv.reader(io.StringIO(render(runs[0], "csv"))))[1:]


def test_no_cell_of_a_csv_is_a_formula(runs: list[Run]) -> None:
    rows = list(csv.DictReader(io.StringIO(render_all(runs, "csv"))))
    assert {row["run"] for row in rows} == set(NAMES)
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for name, cell in row.items() if name != "value")


def test_json_of_several_runs_is_one_list(runs: list[Run]) -> None:
    assert json.loads(render_all(runs, "json")) == [json.loads(render(run, "json")) for run in runs]


@pytest.mark.parametrize("form", ["terminal", "markdown"])
def test_a_document_of_several_runs_begins_with_their_verdicts(runs: list[Run], form: str) -> None:
    text = render_all(runs, form)
    assert text.lstrip("# \n").startswith("2 runs\n")
    assert text.index("verdict") < text.index("moeprof characterize: lm-micro")
    assert text.count("moeprof characterize: lm-micro") == 2
    assert "\n# moeprof" not in text.replace("\n\n# moeprof", ""), "an empty line separates the runs"


def test_every_format_renders_one_run_and_several(runs: list[Run]) -> None:
    for form in FORMATS:
        assert render(runs[0], form)
        assert "=1+1" in render_all(runs, form) or form == "short"
