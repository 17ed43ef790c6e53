"""Backends and kinds of choices, from calls written by hand: over domains, by layer and over layers, and in the report."""

from pathlib import Path
from typing import Any

from moeprof.analysis.routing.expert_calls import call_rows
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.row import RecordedRow
from moeprof.records.run.raw_tables import EXPERT_CALLS, FATES
from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import Details, Table
from moeprof.reporters.sections.calls import call_blocks
from tests.records.run.runs import raw_run


def calls(layer: str, backend: str, number: int, domain: str = "prose", **fates: int) -> dict[str, Any]:
    where = {"phase": "decode", "variant": "own", "domain": domain, "layer": layer, "backend": backend}
    return where | {"calls": number} | dict.fromkeys(FATES, 0) | fates


def recorded(run: Run) -> RunMetrics:
    return RunMetrics.from_rows(run.record, [RecordedRow(row.address, "", row.kind, row.value) for row, _ in call_rows(run)])


def test_calls_and_choices_are_added_up_over_domains_and_layers(tmp_path: Path) -> None:
    rows = [
        calls("0", "grouped_mm", 1, routed=6, padding=2),
        calls("0", "batched_mm", 3, routed=2, zero_compute=2),
        calls("0", "batched_mm", 2, "code", routed=4),
        calls("1", "batched_mm", 5, routed=4, zero_compute=4),
    ]
    found = {(row.metric, row.layer, row.category): row.value for row, _ in call_rows(raw_run(tmp_path, {EXPERT_CALLS: rows}))}
    assert found == {
        ("expert_calls", "0", "grouped_mm"): 1,
        ("expert_calls", "0", "batched_mm"): 5,
        ("expert_calls", "1", "batched_mm"): 5,
        ("expert_calls", "", "grouped_mm"): 1,
        ("expert_calls", "", "batched_mm"): 10,
        ("choices", "0", "routed"): 12 / 16,
        ("choices", "0", "padding"): 2 / 16,
        ("choices", "0", "zero_compute"): 2 / 16,
        ("choices", "1", "routed"): 0.5,
        ("choices", "1", "zero_compute"): 0.5,
        ("choices", "", "routed"): 16 / 24,
        ("choices", "", "padding"): 2 / 24,
        ("choices", "", "zero_compute"): 6 / 24,
    }


def test_the_report_shows_every_backend_and_every_kind_of_choices(tmp_path: Path) -> None:
    rows = [
        calls("0", "grouped_mm", 1, routed=6, padding=2),
        calls("0", "batched_mm", 3, routed=2, zero_compute=6),
    ]
    table, details = call_blocks(recorded(raw_run(tmp_path, {EXPERT_CALLS: rows})), "decode", {"own": "MoE"})
    assert isinstance(table, Table)
    assert table.columns == ["model", "experts backend", "routed", "padding", "zero compute"]
    assert table.rows == [["MoE", "grouped_mm (1 call), batched_mm (3 calls)", "50.0%", "12.5%", "37.5%"]]
    assert isinstance(details, Details)
    (layers,) = details.blocks
    assert isinstance(layers, Table)
    assert layers.rows == [["0", *table.rows[0][1:]]]


def test_choices_that_are_all_computed_need_no_columns(tmp_path: Path) -> None:
    run = raw_run(tmp_path, {EXPERT_CALLS: [calls("0", "eager", 4, routed=8)]})
    (table,) = call_blocks(recorded(run), "decode", {"own": "MoE", "dense": "dense"})
    assert isinstance(table, Table)
    assert (table.columns, table.rows) == (["model", "experts backend"], [["MoE", "eager (4 calls)"]])


def test_a_run_that_recorded_no_calls_has_no_table(tmp_path: Path) -> None:
    run = raw_run(tmp_path, {})
    assert list(call_rows(run)) == []
    assert list(call_blocks(recorded(run), "decode", {"static": "MoE"})) == []
