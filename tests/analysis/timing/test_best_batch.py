"""A best batch is known if the curve of the search is no saw-tooth and the measurement at it agrees with the curve."""

import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.analysis.timing.best_batch import why_undecided
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.metrics.row import RecordedRow
from tests.records.run.runs import record


def numbers(curve: dict[int, float], best: int = 4, again: float = 0, high: float = 0) -> RunMetrics:
    """A curve of static gating over the batch; nothing was measured again without `again`."""
    at = {"workload": "lm", "phase": "score", "variant": "static"}
    rows = [MetricRow("throughput", rate, **at, point=f"batch={batch}") for batch, rate in curve.items()]
    rows.append(MetricRow("best_batch", best, **at))
    rows += [MetricRow("max_throughput", again, **at)] if again else []
    rows += [MetricRow("max_throughput_high", high, **at)] if high else []
    return RunMetrics.from_rows(record(), [RecordedRow(row.address, "", row.kind, row.value) for row in rows])


@pytest.mark.parametrize(("again", "high"), [(0, 0), (40, 0), (38, 41), (20, 39)])
def test_a_single_maximum_that_is_seen_again_is_known(again: float, high: float) -> None:
    assert why_undecided(numbers({1: 10, 2: 20, 4: 40, 8: 39}, again=again, high=high), "score", "static") == ""


def test_a_saw_tooth_is_no_search() -> None:
    found = why_undecided(numbers({1: 10, 2: 30, 4: 40, 8: 15, 16: 22, 32: 30}), "score", "static")
    assert found == "throughput falls by 50% at batch 8 and rises again"


def test_another_batch_that_was_faster_than_the_best_one_is_now_contradicts_it() -> None:
    found = why_undecided(numbers({1: 10, 2: 20, 4: 40, 8: 39}, again=20, high=25), "score", "static")
    assert found == "batch 8 was faster by 95% than batch 4 was when it was measured again"


def test_what_was_not_searched_is_not_doubted() -> None:
    assert why_undecided(RunMetrics.from_rows(record(), []), "score", "static") == ""
