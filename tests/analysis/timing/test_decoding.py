"""Latencies of decoding, from steps written by hand: the first token, the further ones, and the percentiles of the steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.analysis.derive import derive
from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.decoding import decode_rows
from moeprof.records.metrics.registry import METRICS
from moeprof.records.metrics.row import RecordedRow
from moeprof.records.run.raw_tables import DECODE_TIMES
from moeprof.records.run.run import Run
from moeprof.reporters.documents.document import Table
from moeprof.reporters.sections.decoding import latency_blocks
from tests.records.run.runs import raw_run


def cells(part: str, rounds: Sequence[Sequence[int]], domain: str = "prose", rank: int = 0) -> list[dict[str, Any]]:
    """The steps of every round of one part."""
    return [
        {"phase": "decode", "variant": "static", "domain": domain, "part": part, "rank": rank}
        | {"round": index, "step": step, "time_ns": time_ns}
        for index, steps in enumerate(rounds)
        for step, time_ns in enumerate(steps)
    ]


def latencies(run: Run) -> Mapping[tuple[str, str], float]:
    """By metric and domain."""
    return {(row.metric, row.domain): row.value for row, _ in decode_rows(run)}


DECODED = [[10, 1, 3], [20, 4, 4], [30, 2, 2]]


def test_a_prompt_gives_the_first_token_itself(tmp_path: Path) -> None:
    rows = [*cells("prefill", [[100], [300], [200]]), *cells("decode", DECODED)]
    found = latencies(raw_run(tmp_path / "run", {DECODE_TIMES: rows}))
    assert found["time_to_first_token", "prose"] == 200
    assert found["time_per_output_token", "prose"] == pytest.approx(28 / 3)  # means 14/3, 28/3 and 34/3


def test_after_a_source_the_first_step_gives_the_first_token(tmp_path: Path) -> None:
    rows = [*cells("encode", [[100], [300], [200]]), *cells("decode", DECODED)]
    found = latencies(raw_run(tmp_path / "run", {DECODE_TIMES: rows}))
    assert found["time_to_first_token", "prose"] == 230  # 110, 320 and 230
    assert found["time_per_output_token", "prose"] == 2  # 2, 4 and 2


def test_a_translation_of_one_step_has_no_further_token(tmp_path: Path) -> None:
    rows = [*cells("encode", [[100]]), *cells("decode", [[10]])]
    found = latencies(raw_run(tmp_path / "run", {DECODE_TIMES: rows}))
    assert found["time_to_first_token", ""] == 110
    assert ("time_per_output_token", "") not in found


def test_percentiles_are_over_the_steps_of_all_rounds_and_interpolated(tmp_path: Path) -> None:
    rows = [*cells("prefill", [[1]] * 4), *cells("decode", [range(start, 101, 4) for start in range(4)])]
    found = latencies(raw_run(tmp_path / "run", {DECODE_TIMES: rows}))  # the steps are 0 to 100
    assert [found[f"decode_step_p{percentile}", "prose"] for percentile in (50, 95, 99)] == [50, 95, 99]


def test_over_domains_prompts_are_averaged_and_steps_are_pooled(tmp_path: Path) -> None:
    prose = [*cells("prefill", [[100]]), *cells("decode", [[2, 4]])]
    code = [*cells("prefill", [[300]], "code"), *cells("decode", [[9, 9]], "code")]
    found = latencies(raw_run(tmp_path / "run", {DECODE_TIMES: [*prose, *code]}))
    assert {metric: value for (metric, domain), value in found.items() if not domain} == {
        "time_to_first_token": 200,
        "time_per_output_token": 6,
        "decode_step_p50": 6.5,
        "decode_step_p95": 9,
        "decode_step_p99": 9,
    }


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**9), min_size=4, max_size=4), min_size=2, max_size=2))
def test_a_step_lasts_as_long_as_on_the_slowest_rank(tmp_path_factory: pytest.TempPathFactory, ranks: list[list[int]]) -> None:
    slowest = [max(times) for times in zip(*ranks, strict=True)]
    apart = [row for rank, times in enumerate(ranks) for row in parts(times, rank)]
    folder = tmp_path_factory.mktemp("ranks")
    assert latencies(raw_run(folder / "apart", {DECODE_TIMES: apart})) == latencies(
        raw_run(folder / "together", {DECODE_TIMES: parts(slowest, 0)})
    )


def parts(times: Sequence[int], rank: int) -> list[dict[str, Any]]:
    """One round of a source and the steps after it."""
    return [*cells("encode", [times[:1]], rank=rank), *cells("decode", [times[1:]], rank=rank)]


def test_a_run_without_steps_has_no_latencies_and_no_table(tmp_path: Path) -> None:
    run = raw_run(tmp_path / "run", {})
    rows = [RecordedRow(row.address, "", row.kind, row.value) for row, _ in derive(run)]
    assert not [row for row in rows if row.key.metric.startswith(("time_", "decode_step"))]
    assert list(latency_blocks(RunMetrics.from_rows(run.record, rows), "decode", {"static": "MoE"})) == []


def test_the_report_shows_a_row_per_domain_and_model(tmp_path: Path) -> None:
    rows = [*cells("prefill", [[1_500_000]] * 3), *cells("decode", [[1000, 2000, 3000]] * 3)]
    run = raw_run(tmp_path / "run", {DECODE_TIMES: rows})
    recorded = [RecordedRow(row.address, METRICS[row.metric].unit, row.kind, row.value) for row, _ in decode_rows(run)]
    metrics = RunMetrics.from_rows(run.record, recorded)
    (table,) = latency_blocks(metrics, "decode", {"static": "MoE", "dense": "dense"}, ["", "prose"])
    assert isinstance(table, Table)
    assert table.columns == ["domain", "model", "first token", "per further token", "step p50", "p95", "p99"]
    assert table.rows == [[domain, "MoE", "1.50 ms", "2 us", "2 us", "3 us", "3 us"] for domain in ("all", "prose")]
