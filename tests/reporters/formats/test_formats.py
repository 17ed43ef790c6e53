"""Every format renders every run, whole or partial, and nothing in a run is taken for markup."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.cells import percent
from moeprof.reporters.documents.document import Bullets, Curves, Heading, HeatMap, Paragraph, Table
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.documents.summary import summary
from moeprof.reporters.formats.markdown import render_document as markdown
from moeprof.reporters.formats.registry import FORMATS, render
from moeprof.reporters.formats.terminal import render_document as terminal
from moeprof.reporters.page.page import render_document as html
from moeprof.studies.characterize import characterization
from tests.reporters.page.origins import visible

Micro = Callable[[str], Path]


@pytest.fixture
def runs(micro: Micro, tmp_path: Path) -> list[Run]:
    """A whole run of each workload, and one that was stopped before anything was recorded."""
    whole = [characterization().run(load_recipe(str(micro(workload))), tmp_path / workload) for workload in ("lm", "mt")]
    record = RunRecord(command="characterize", recipe=load_recipe("lm-tiny"))
    return [*whole, RunWriter(tmp_path / "partial", record).finish("interrupted")]


def test_every_format_renders_every_run_without_nan(runs: list[Run]) -> None:
    for run in runs:
        for form in FORMATS:
            text = render(run, form)
            assert text
            assert "nan" not in visible(text).lower().split()


def test_an_invalid_run_says_so_in_every_readable_format(runs: list[Run]) -> None:
    for form in ("terminal", "markdown", "html"):
        assert "NOT VALID: interrupted" in render(runs[-1], form)
    assert '"valid": false' in render(runs[-1], "json")


def test_the_summary_has_at_most_ten_lines(runs: list[Run]) -> None:
    from moeprof.analysis.run_metrics import RunMetrics

    for run in runs:
        assert len(summary(run, RunMetrics.of(run))) <= 10
    assert len(summary(runs[0], RunMetrics.of(runs[0]))) >= 7


def test_a_phase_that_was_not_recorded_says_so(runs: list[Run]) -> None:
    assert "Nothing was recorded in this phase." in render(runs[-1], "markdown")


def test_a_report_fits_its_terminal(runs: list[Run]) -> None:
    for width in (80, 200):
        for line in terminal(document_of(runs[0]), Console(width=width, file=io.StringIO())).splitlines():
            assert len(line) <= width


def test_text_from_files_is_never_markup() -> None:
    hostile = "<script>alert(1)</script> [bold]x[/bold] `a|b` *c*"
    blocks = [
        Heading(hostile),
        Paragraph(hostile),
        Bullets([hostile]),
        Table(["a", "b"], [[hostile, "1"]], caption=hostile),
        HeatMap(hostile, ["```x"], [[0.0, 1.0]], 1.0),
        Curves(hostile, hostile, "```x", [("```x", [(1, 1)])], hostile, ("```x", 1)),
    ]
    assert "<script>alert" not in html(blocks)
    text = markdown(blocks)
    prose = "".join(text.split("```")[::2])
    assert "<script>" not in prose
    assert "`a|b`" not in prose
    assert text.count("```") == 4
    assert "[bold]x[/bold]" in terminal(blocks, Console(width=200, file=io.StringIO()))


def test_markdown_tables_have_the_same_number_of_cells_in_every_row(runs: list[Run]) -> None:
    paragraphs = [part.splitlines() for part in render(runs[0], "markdown").split("\n\n")]
    tables = [lines for lines in paragraphs if lines and lines[0].startswith("|")]
    assert sum(map(len, tables)) > 10
    for table in tables:
        assert len({line.count("|") for line in table}) == 1


def test_shares_never_round_to_nothing_or_to_everything() -> None:
    assert [percent(value) for value in (0.0, 1e-6, 0.5, 0.99999, 1.0)] == ["0.0%", "<0.1%", "50.0%", ">99.9%", "100.0%"]


def test_a_run_without_a_pass_says_which_and_every_format_still_renders(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moeprof.studies.characterize.PASSES", ())
    run = characterization().run(load_recipe(str(micro("lm"))), tmp_path / "run")
    text = render(run, "markdown")
    assert text.count("this run has no breakdown pass") == 2
    assert text.count("this run has no memory pass") == 2
    for form in FORMATS:
        assert render(run, form)


def test_a_run_whose_trace_is_gone_says_so(runs: list[Run]) -> None:
    for part in (runs[0].path / "routing").iterdir():
        part.unlink()
    assert "this run has no routing trace of the phase" in render(Run.open(runs[0].path), "markdown")


def test_one_batch_of_one_domain_has_no_locality_and_no_drift(micro: Micro, tmp_path: Path) -> None:
    overrides = ["load.batches=1", 'data.domains=["prose"]', 'load.phases=["score"]']
    text = render(characterization().run(load_recipe(str(micro("lm")), overrides), tmp_path / "run"), "markdown")
    assert "Locality needs two consecutive steps of a domain" in text
    assert "Drift needs two domains or languages" in text


def test_a_model_with_one_expert_is_reported(micro: Micro, tmp_path: Path) -> None:
    recipe = load_recipe(str(micro("lm")), ["model.experts=1", "gating.top_k=1"])
    text = render(characterization().run(recipe, tmp_path / "run"), "markdown")
    assert "nan" not in text.lower().split()
