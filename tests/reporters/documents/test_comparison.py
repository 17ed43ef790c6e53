"""What a comparison says: computed from rows that are written here by hand, so that every cell is known."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.bottleneck import IDLE_GAPS
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.documents.document import Curves, Details, Table
from moeprof.reporters.documents.report import document_of
from moeprof.reporters.documents.verdict import verdict
from moeprof.reporters.formats.registry import FORMATS, render
from moeprof.reporters.formats.terminal import render_document as terminal
from moeprof.reporters.names import name_of

MIB = 2**20
LABELS = ("static", "tutel", "dynamic")


def speeds(phase: str = "score") -> list[MetricRow]:
    """Static at 100 tokens a second, Tutel at 200, dynamic gating at 400; at their best 125, 250 and 1,000."""
    rows = []
    for label, equal, best, batch in zip(LABELS, (100, 200, 400), (125, 250, 1000), (4, 8, 64), strict=True):
        rows += [
            MetricRow("throughput", equal, "lm", phase, variant=label),
            MetricRow("throughput_low", equal * 0.9, "lm", phase, variant=label),
            MetricRow("throughput_high", equal * 1.1, "lm", phase, variant=label),
            MetricRow("max_throughput", best, "lm", phase, variant=label),
            MetricRow("best_batch", batch, "lm", phase, variant=label),
        ]
    for against, equal, best in (("static", 4, 8), ("tutel", 2, 4)):
        for metric, ratio in (("speedup_equal_batch", equal), ("speedup_max_throughput", best)):
            at = {"workload": "lm", "phase": phase, "variant": "dynamic", "category": against}
            rows += [MetricRow(metric, ratio, **at), MetricRow(f"{metric}_low", ratio - 0.5, **at)]
            rows.append(MetricRow(f"{metric}_high", ratio + 0.5, **at))
    return rows


def sizes(phase: str = "score") -> list[MetricRow]:
    """Weights of 10 MiB; 40, 20 and 2 MiB beside them; the sweeps of static and Tutel met their budget, dynamic's did not."""
    rows = [MetricRow("memory_budget", 50 * MIB, "lm", phase)]
    for label, dynamic, largest in zip(LABELS, (40, 20, 2), (8, 16, 64), strict=True):
        rows += [
            MetricRow("memory_static", 10 * MIB, "lm", variant=label),
            MetricRow("memory_total_peak", (10 + dynamic) * MIB, "lm", phase, variant=label),
            MetricRow("memory_dynamic_peak", dynamic * MIB, "lm", phase, variant=label),
            MetricRow("max_batch", largest, "lm", phase, variant=label),
        ]
        for batch in (1, largest, 2 * largest):
            fits = batch <= largest
            at = {"workload": "lm", "phase": phase, "variant": label, "point": f"batch={batch}"}
            if label == "dynamic" and not fits:
                continue
            rows.append(MetricRow("fits", fits, **at))
            if fits:
                rows += [MetricRow("throughput", 12 * batch, **at), MetricRow("memory_total_peak", (10 + batch) * MIB, **at)]
    return rows


def outputs(phase: str = "score", *, differing: int = 0) -> list[MetricRow]:
    """90 of 100 tokens compared."""
    rows = []
    for label in LABELS[1:]:
        at = {"workload": "lm", "phase": phase, "variant": label}
        rows += [
            MetricRow("output_tokens_compared", 90, **at),
            MetricRow("output_tokens_lost", 10, **at),
            MetricRow("output_tokens_differing", differing, **at),
            MetricRow("routing_flips", 3, **at),
            MetricRow("output_max_abs_diff", 0.5 if differing else 1e-6, **at),
        ]
    rows += [
        MetricRow("perplexity", value, "lm", phase, variant=label) for label, value in (("static", 5.5), ("dynamic", 5.25))
    ]
    return rows


def written(path: Path, rows: list[MetricRow], device: str = "cpu") -> Run:
    variants: list[dict[str, str | bool]] = [{"label": label, "dense": False} for label in LABELS]
    recipe = load_recipe("lm-tiny", ['load.phases=["score"]', f"measure.device={device}"])
    writer = RunWriter(path, RunRecord(command="optimize", recipe=recipe, variants=variants))
    writer.add_metrics(rows)
    return writer.finish()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return written(tmp_path / "run", [*speeds(), *sizes(), *outputs()])


def lines_of(run: Run) -> list[str]:
    return verdict(run, RunMetrics.of(run))


def cells(run: Run) -> dict[str, list[str]]:
    """The rows of the comparison's table by title."""
    table = next(block for block in document_of(run) if isinstance(block, Table))
    assert list(table.columns) == ["", *LABELS]
    return {title: list(row) for title, *row in table.rows}


def test_the_verdict_keeps_the_two_speedups_apart_and_names_every_baseline(run: Run) -> None:
    assert lines_of(run)[0] == (
        "Scoring: dynamic gating is 8x [7.5x to 8.5x] as fast as static gating, each at its best batch (64 vs 4); 4x [3.5x to 4.5x] at "
        "equal batch 8; 4x [3.5x to 4.5x] as fast as Tutel."
    )


def test_the_verdict_reports_memory_and_the_largest_batch(run: Run) -> None:
    assert lines_of(run)[1] == (
        "Memory (score, batch 8, static → dynamic): peak 50 MiB → 12 MiB; activations and buffers 40 MiB → 2 MiB (-95.0%); "
        "largest batch within the 50 MiB budget: 8 → at least 64 (search stopped there)."
    )


def test_the_verdict_reports_how_many_tokens_were_compared(run: Run) -> None:
    assert lines_of(run)[2] == (
        "Outputs (score): equal on all 90 compared tokens (10 excluded: they depend on a dropped choice or a near-tie); 3 routing flips; "
        "perplexity 5.25 (baseline 5.5)."
    )


def test_an_interval_that_holds_one_is_called_no_difference(tmp_path: Path) -> None:
    rows = [row for row in speeds() if not (row.metric.startswith("speedup_equal") and row.category == "static")]
    at = {"workload": "lm", "phase": "score", "variant": "dynamic", "category": "static"}
    close = [
        MetricRow(f"speedup_equal_batch{end}", value, **at) for end, value in (("", 1.01), ("_low", 0.97), ("_high", 1.05))
    ]
    found = lines_of(written(tmp_path / "run", [*rows, *close]))
    assert "1.01x [0.97x to 1.05x] (no measurable difference)" in found[0]


def test_without_equal_outputs_no_speed_up_is_reported(tmp_path: Path) -> None:
    found = lines_of(written(tmp_path / "run", [*sizes(), *outputs(differing=7)]))
    assert found[0] == "Scoring: outputs differ, so no speed-up is reported."
    assert "DIFFERENT on 7 of 90 compared tokens" in found[2]


def test_the_table_has_a_row_for_each_measure(run: Run) -> None:
    found = cells(run)
    assert found["tokens/s, batch 8"] == ["100 [90-110]", "200 [180-220]", "400 [360-440]"]
    assert found["vs static, batch 8"] == ["-", "-", "4x [3.5-4.5]"]
    assert found["vs tutel, batch 8"] == ["-", "-", "2x [1.5-2.5]"]
    assert found["tokens/s, best batch"] == ["125", "250", "1,000"]
    assert found["vs static, best batch"] == ["-", "-", "8x [7.5-8.5]"]
    assert found["best batch"] == ["4", "8", "64"]
    assert found["largest batch that fits"] == ["8", "16", ">= 64"]
    assert found["peak memory, batch 8"] == ["50 MiB", "30 MiB", "12 MiB"]
    assert found["static memory"] == ["10 MiB"] * 3
    assert found["dynamic memory"] == ["40 MiB", "20 MiB", "2 MiB"]
    assert found["outputs equal?"] == ["reference", "yes, 90 tokens", "yes, 90 tokens"]
    assert found["perplexity"] == ["5.5000", "-", "5.2500"]
    assert "chrF" not in found


def test_outputs_that_differ_stand_in_the_table(tmp_path: Path) -> None:
    run = written(tmp_path / "run", [*speeds(), *outputs(differing=7)])
    assert cells(run)["outputs equal?"][2] == "NO: 7 of 90 differ"


def test_the_layer_that_differs_most_is_named(tmp_path: Path) -> None:
    rows = [
        MetricRow(f"output_{metric}", value, "lm", "score", variant=variant, layer=layer)
        for layer, variant, apart in (("1", "tutel", 1e-6), ("1", "dynamic", 0.0), ("3", "tutel", 2e-7), ("3", "dynamic", 0.25))
        for metric, value in (("tokens_compared", 1234), ("tokens_differing", 7 * (apart > 0.1)), ("max_abs_diff", apart))
    ]
    report = render(written(tmp_path / "run", [*speeds(), *outputs(), *rows]), "markdown")
    assert "Layer 3 differs most, under dynamic: 0.250." in report
    assert "| 3     | dynamic |           1,234 |         7 |              0.250 |" in report


def test_a_layer_whose_outputs_are_not_finite_differs_most(tmp_path: Path) -> None:
    at = {"workload": "lm", "phase": "score", "variant": "tutel"}
    rows = [MetricRow(f"output_tokens_{name}", 9, **at, layer="1") for name in ("compared", "differing")]
    rows += [MetricRow("output_tokens_compared", 9, **at, layer="3"), MetricRow("output_max_abs_diff", 5.0, **at, layer="3")]
    report = render(written(tmp_path / "run", [*speeds(), *outputs(), *rows]), "markdown")
    assert "Layer 1 differs most, under tutel: not finite." in report


def test_layers_that_are_equal_to_the_bit_are_not_compared_with_each_other(tmp_path: Path) -> None:
    at = {"workload": "lm", "phase": "score", "variant": "tutel", "layer": "1"}
    rows = [MetricRow("output_tokens_compared", 9, **at), MetricRow("output_max_abs_diff", 0.0, **at)]
    assert "differs most" not in render(written(tmp_path / "run", [*speeds(), *outputs(), *rows]), "markdown")


def test_nothing_that_fits_is_called_none(tmp_path: Path) -> None:
    at = {"workload": "lm", "phase": "score", "variant": "static"}
    rows = [MetricRow("max_batch", 0, **at), MetricRow("fits", 0, **at, point="batch=1"), *outputs()]
    assert cells(written(tmp_path / "run", rows))["largest batch that fits"] == ["none", "-", "-"]


def test_the_curves_of_the_baseline_and_the_last_variant_hold_the_points_of_the_sweep_and_a_table_those_of_all(
    run: Run,
) -> None:
    document = document_of(run)
    speed, memory = (block for block in document if isinstance(block, Curves))
    assert dict(speed.curves) == {"static": [(1, 12.0), (8, 96.0)], "dynamic": [(1, 12.0), (64, 768.0)]}
    (others,) = (block for block in document if isinstance(block, Details) and block.title.startswith("batch sweep"))
    table = others.blocks[0]
    assert isinstance(table, Table)
    assert table.columns == ["batch", *LABELS]
    assert table.rows[2] == ["16", "-", "192", "-"]
    assert memory.limit == ("budget", 50 * MIB)
    assert dict(memory.curves)["static"] == [(1, 11.0 * MIB), (8, 18.0 * MIB)]


def test_without_a_sweep_there_are_no_curves(tmp_path: Path) -> None:
    rows = [row for row in speeds() if row.metric.startswith(("throughput", "speedup_equal"))]
    document = document_of(written(tmp_path / "run", rows))
    assert not any(isinstance(block, Curves) for block in document)


def test_times_per_region_on_cuda_are_said_to_include_gaps(tmp_path: Path) -> None:
    at = {"workload": "lm", "phase": "score", "region": "experts"}
    rows = [MetricRow("region_share", 1.0, **at, variant=label) for label in LABELS]
    rows += [MetricRow("region_time", 2e6, **at, variant=label) for label in LABELS]
    reports = {device: render(written(tmp_path / device, [*speeds(), *rows], device), "markdown") for device in ("cpu", "cuda")}
    assert IDLE_GAPS in reports["cuda"]
    assert IDLE_GAPS not in reports["cpu"]


def test_every_format_renders_it_within_its_width(run: Run) -> None:
    for form in FORMATS:
        assert render(run, form)
    for width in (80, 200):
        assert all(
            len(line) <= width for line in terminal(document_of(run), Console(width=width, file=io.StringIO())).splitlines()
        )


def test_a_comparison_that_was_stopped_at_once_still_renders(tmp_path: Path) -> None:
    writer = RunWriter(
        tmp_path / "run", RunRecord(command="optimize", recipe=load_recipe("lm-tiny"), variants=[{"label": "static"}])
    )
    assert "NOT VALID: interrupted" in render(writer.finish("interrupted"), "markdown")


@pytest.mark.parametrize(
    ("label", "name"),
    [("static", "static gating"), ("dynamic+loop", "dynamic gating with loop"), ("dense", "the dense twin"), ("new", "new")],
)
def test_labels_have_names(label: str, name: str) -> None:
    assert name_of(label) == name
