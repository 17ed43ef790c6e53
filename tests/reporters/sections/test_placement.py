"""What a comparison says of a placement: from rows that are written here by hand."""

import io
from dataclasses import asdict
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.document import Heading, HeatMap, Paragraph, Table
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.documents.verdict import verdict
from moeprof.reporters.formats.registry import render
from moeprof.reporters.formats.terminal import render_document
from moeprof.reporters.names import name_of
from moeprof.reporters.sections.placement import placement_blocks
from tests.reporters.page.origins import words

MIB = 2**20
PLAIN, GREEDY = Variant("dynamic"), Variant("dynamic", placement="greedy")
BEFORE, AFTER = (
    {"workload": "lm", "phase": "score", "variant": "dynamic"},
    {"workload": "lm", "phase": "score", "variant": "dynamic+greedy"},
)


def rows_of(ranks: int, *, steps: int = 12, gain: tuple[float, float, float] = (0.25, 0.2, 0.3)) -> list[MetricRow]:
    """The busiest of the ranks takes 80% of a step's choices, and then 60%; 3 MiB move in 2 ms."""
    low_high = zip(("", "_low", "_high"), gain, strict=True)
    rows = [MetricRow(f"load_gain{end}", value, **AFTER) for end, value in low_high]
    rows += [
        MetricRow("history_steps", 9, **AFTER),
        MetricRow("test_steps", steps, **AFTER),
        MetricRow("ideal_load", 1 / ranks, **AFTER),
        MetricRow("moved_bytes", 3 * MIB, **AFTER),
        MetricRow("move_time", 2e6, **AFTER),
    ]
    for layer in ("", "1"):
        rows += [
            MetricRow("avg_max_load_floor", 0.55, **AFTER, layer=layer),
            MetricRow("moved_experts", 18, **AFTER, layer=layer),
        ]
        for where, mean, most in ((BEFORE, 0.8, 0.9), (AFTER, 0.6, 0.7)):
            rows += [MetricRow("avg_max_load", mean, **where, layer=layer), MetricRow("max_load", most, **where, layer=layer)]
            rows.append(MetricRow("rank_load_max_over_mean", mean * ranks, **where, layer=layer))
            for rank in range(ranks):
                share = mean if rank == 0 else (1 - mean) / (ranks - 1)
                rows.append(MetricRow("rank_tokens", 1000 * share, **where, layer=layer, rank=str(rank)))
    for where in (BEFORE, AFTER):
        for rank in range(ranks):
            rows.append(MetricRow("comm_wait_time", 1e6 * (rank + 1), **where, rank=str(rank)))
            rows.append(MetricRow("memory_total_peak", (8 + rank) * MIB, **where, rank=str(rank)))
    return rows


def speed(low: float, high: float) -> list[MetricRow]:
    """1.2 times as fast as under contiguous placement, within an interval."""
    at = {**AFTER, "category": "dynamic"}
    ends = (MetricRow("speedup_equal_batch", 1.2, **at), MetricRow("speedup_equal_batch_low", low, **at))
    return [*ends, MetricRow("speedup_equal_batch_high", high, **at), MetricRow("payoff_steps", 40.4, **AFTER)]


def written(path: Path, rows: list[MetricRow], ranks: int = 2) -> Run:
    variants = [{"label": variant.label, **asdict(variant)} for variant in (STATIC, PLAIN, GREEDY)]
    recipe = load_recipe("lm-tiny", ['load.phases=["score"]', f"parallel.ranks={ranks}"])
    writer = RunWriter(path, RunRecord(command="optimize", recipe=recipe, variants=variants))
    writer.add_metrics(rows)
    return writer.finish()


def blocks(run: Run) -> list[object]:
    return list(placement_blocks(run, RunMetrics.of(run), "score"))


def sentence(run: Run) -> str:
    (found,) = (block.text for block in blocks(run) if isinstance(block, Paragraph))
    return found


def test_the_verdict_reports_load_gain_move_and_payback_time(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [*rows_of(2), *speed(1.1, 1.3)])
    (line,) = [line for line in verdict(run, RunMetrics.of(run)) if line.startswith("Load balance")]
    assert line == (
        "Load balance (score): busiest-rank share 80.0% → 60.0% (ideal 50.0%), a gain of 25.0% (95% interval 20.0% to 30.0%) on held-out "
        "steps: recommended. Moving 3 MiB took 2 ms. The move pays off after 40 steps."
    )


def test_without_a_measurable_speed_up_a_move_has_no_payback_time(tmp_path: Path) -> None:
    found = sentence(written(tmp_path / "run", [*rows_of(2), *speed(0.9, 1.3)]))
    assert found.endswith("No measurable speed-up, so the move has no payback time.")


def test_without_an_interval_of_the_speed_up_no_payback_time_is_given(tmp_path: Path) -> None:
    rows = [row for row in speed(1.1, 1.3) if not row.metric.endswith("_low")]
    found = sentence(written(tmp_path / "run", [*rows_of(2), *rows]))
    assert found.endswith("The speed-up has no interval (fewer than 6 rounds), so no payback time is given.")


def test_without_shorter_steps_a_move_has_no_payback_time(tmp_path: Path) -> None:
    found = sentence(written(tmp_path / "run", rows_of(2)))
    assert found.endswith("18 experts changed rank, 3 MiB in 2 ms. Steps are not shorter, so the move has no payback time.")


def test_few_steps_are_too_little_evidence_and_the_number_that_would_do_is_reported(tmp_path: Path) -> None:
    found = sentence(written(tmp_path / "run", rows_of(2, steps=4)))
    assert "The placement is based on 9 steps and is tested on 4 later ones: the busiest rank gets 60.0%" in found
    assert "too little evidence. About 10 such test steps would decide whether the gain exceeds 5%." in found


def test_ranks_and_layers_stand_before_and_after(tmp_path: Path) -> None:
    ranks, layers, loads = [block for block in blocks(written(tmp_path / "run", rows_of(2))) if isinstance(block, Table)]
    assert ranks.rows[0] == ["0", "800.0", "600.0", "1 ms", "1 ms", "8 MiB", "8 MiB"]
    assert layers.rows == [
        ["1", "55.0%", "80.0%", "60.0%", "90.0%", "70.0%", "18"],
        ["all", "55.0%", "80.0%", "60.0%", "90.0%", "70.0%", "18"],
    ]
    assert loads.rows == [["1", "dynamic", "800.0", "200.0"], ["1", "dynamic+greedy", "600.0", "400.0"]]


def test_many_ranks_are_maps(tmp_path: Path) -> None:
    found = blocks(written(tmp_path / "run", rows_of(8), ranks=8))
    maps = [block for block in found if isinstance(block, HeatMap)]
    assert [block.values[0][0] for block in maps] == [800, 600]
    assert {block.top for block in maps} == {800}


def test_the_section_fits_eighty_columns(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [*rows_of(4), *speed(1.1, 1.3)], ranks=4)
    shown = render_document(blocks(run), Console(width=80, file=io.StringIO()))  # type: ignore[arg-type]
    assert max(map(len, shown.splitlines())) <= 80
    assert "600.0" in shown
    assert "…" not in shown


def test_without_a_placement_there_is_no_section_and_without_history_it_says_so(tmp_path: Path) -> None:
    writer = RunWriter(
        tmp_path / "plain", RunRecord(command="optimize", recipe=load_recipe("lm-tiny", []), variants=[{"label": "static"}])
    )
    assert blocks(writer.finish()) == []
    assert sentence(written(tmp_path / "run", [])).startswith("Placement is contiguous")


@pytest.mark.parametrize("form", ["markdown", "html"])
def test_every_report_has_it(tmp_path: Path, form: str) -> None:
    assert "Gain: 25.0% (95% interval 20.0% to 30.0%): recommended." in words(
        render(written(tmp_path / "run", rows_of(2)), form)
    )


def test_it_stands_between_time_and_traffic(tmp_path: Path) -> None:
    titles = [block.text for block in document_of(written(tmp_path / "run", rows_of(2))) if isinstance(block, Heading)]
    assert "Expert placement: dynamic+greedy" in titles


def test_placements_have_names_in_sentences() -> None:
    assert name_of("dynamic+greedy") == "dynamic gating with greedy placement"
    assert name_of("dynamic+loop+eplb-distinct") == "dynamic gating with loop and eplb-distinct placement"
    assert name_of("dynamic+file") == "dynamic gating with a placement from a file"
