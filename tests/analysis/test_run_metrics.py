"""The numbers of a run are read by keyword address; runs of earlier versions lack some over all domains."""

from pathlib import Path

import pytest

from moeprof.analysis.comparison.compare import compare
from moeprof.analysis.comparison.measurement import measurement_of
from moeprof.analysis.comparison.verdicts import Rules
from moeprof.analysis.run_metrics import MissingMetricError, RunMetrics
from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import COLUMNS
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.reporters.formats.registry import render

OLD = """\
lm,score,prose,static,,,,,,step_latency,ns,timed,2000000.0
lm,score,prose,static,,,,,,throughput,tokens/s,timed,5000.0
lm,score,prose,dense,,,,,,step_latency,ns,timed,1000000.0
lm,score,prose,static,,,,experts,,region_time,ns,timed,1500000.0
lm,score,prose,static,,,,experts,,region_share,fraction,timed,0.75
lm,score,,static,,,,,,dropped_fraction,fraction,routed,0.25
lm,score,prose,static,,,,,,dropped_fraction,fraction,routed,0.5
lm,decode,prose,static,,,,,,throughput,tokens/s,timed,100.0
lm,decode,code,static,,,,,,throughput,tokens/s,timed,300.0
lm,score,,static,batch=2,,,,,throughput,tokens/s,timed,6000.0
lm,score,,static,batch=16,,,,,throughput,tokens/s,timed,7000.0
lm,score,prose,static,batch=4,,,,,throughput,tokens/s,timed,1.0
lm,score,,static,batch=8;slots=4,,,,,throughput,tokens/s,timed,2.0
"""
"""Rows as the version before RunMetrics wrote them: in `score` a single domain stands for the whole."""


def run_with(path: Path, rows: str) -> Run:
    """A finished run whose table of metrics is this text."""
    RunWriter(path, RunRecord(command="characterize", recipe=load_recipe("lm-tiny"))).finish()
    (path / "metrics.csv").write_text(f"{','.join(COLUMNS)}\n{rows}")
    return Run.open(path)


@pytest.fixture
def metrics(tmp_path: Path) -> RunMetrics:
    return RunMetrics.of(run_with(tmp_path / "run", OLD))


def test_a_number_has_the_address_of_the_keys_that_are_named(metrics: RunMetrics) -> None:
    assert metrics.value("dropped_fraction", phase="score", variant="static") == 0.25
    assert metrics.value("dropped_fraction", phase="score", variant="static", domain="prose") == 0.5
    assert metrics.at(phase="score", variant="static").value("throughput", point="batch=2") == 6000
    assert metrics.at(phase="score").at(variant="static").value("throughput", variant="static", domain="prose") == 5000


def test_a_missing_number_is_an_error_that_names_the_address_or_none_if_asked(metrics: RunMetrics) -> None:
    with pytest.raises(MissingMetricError) as caught:
        metrics.at(phase="score").value("throughput", variant="dynamic", layer="3")
    assert caught.value.what == f"run {metrics.source}: no throughput for workload lm, phase score, variant dynamic, layer 3"
    assert metrics.or_none("throughput", phase="score", variant="dynamic") is None
    assert metrics.or_none("throughput", phase="score") is None, "no variant is assumed"
    assert metrics.or_none("perplexity", phase="score", variant="static") is None


def test_in_a_phase_with_one_domain_its_number_is_also_the_one_over_all_domains(metrics: RunMetrics) -> None:
    score = metrics.at(phase="score", variant="static")
    assert score.value("step_latency") == score.value("step_latency", domain="prose") == 2e6
    assert score.value("region_share", region="experts") == 0.75
    assert score.value("dropped_fraction") == 0.25, "a recorded number stays"
    assert metrics.or_none("throughput", phase="decode", variant="static") is None, "two domains are never one"


def test_phases_domains_and_cells_are_listed_in_order(metrics: RunMetrics) -> None:
    assert metrics.phases == ["score", "decode"]
    assert metrics.domains("decode") == ["prose", "code"]
    assert metrics.distinct("variant", "step_latency", phase="score") == ["static", "dense"]
    assert metrics.at(phase="decode").distinct("domain", "throughput") == ["prose", "code"]
    assert [row.value for row in metrics.rows("throughput", phase="decode")] == [100, 300]


def test_a_curve_has_the_points_at_which_nothing_else_was_swept(metrics: RunMetrics) -> None:
    here = metrics.at(phase="score", variant="static")
    # batch=4 was recorded for one domain only, which is the only one of the phase
    assert here.curve("throughput", "batch") == [(2, 6000), (4, 1), (16, 7000)]
    assert here.curve("throughput", "batch", other={"slots": "4"}) == [(8, 2)]
    assert here.curve("throughput", "batch", other={"slots": "5"}) == []


def test_two_rows_at_one_address_are_refused(tmp_path: Path) -> None:
    line = OLD.splitlines(keepends=True)[0]
    with pytest.raises(UsageError, match="step_latency is recorded twice at one address"):
        RunMetrics.of(run_with(tmp_path / "run", line + line))


def test_a_run_of_an_earlier_version_is_rendered_and_compared(tmp_path: Path) -> None:
    old = run_with(tmp_path / "old", OLD)
    shown = render(old, "markdown")
    assert "5,000" in shown
    assert "experts, 75% of the step" in shown
    whole = "lm,score,,static,,,,,,throughput,tokens/s,timed,5500.0\n"
    new = run_with(tmp_path / "new", OLD + whole)
    found = compare("old", [measurement_of([old])], "new", [measurement_of([new])], Rules({})).findings
    (speed,) = [
        one
        for one in found
        if (one.metric, one.address.phase, one.address.domain, one.address.point) == ("throughput", "score", "", "")
    ]
    assert (speed.baseline, speed.candidate, speed.change) == (5000, 5500, pytest.approx(0.1))
