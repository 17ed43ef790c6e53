"""The table of regions says what it does not add up to, and that communication is timed twice."""

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.metrics.row import RecordedRow, row_key
from moeprof.records.run.run import RunRecord
from moeprof.reporters.sections.speed import overhead_sentence, region_table
from tests.records.run.runs import record


def numbers(*rows: tuple[str, str, float], found: RunRecord) -> RunMetrics:
    """Rows of scoring under static gating: metric, region, nanoseconds."""
    keys = [(row_key(name, workload="lm", phase="score", variant="static", region=region), ns) for name, region, ns in rows]
    return RunMetrics.from_rows(found, [RecordedRow(key, "ns", "timed", ns) for key, ns in keys])


def caption(*rows: tuple[str, str, float]) -> str:
    metrics = numbers(*rows, found=record())
    return region_table(metrics, "score", ["gate", "a2a_dispatch", "attention"], {"static": "MoE"}).caption


REGION_ROWS = (("region_time", "gate", 1e6), ("region_time", "attention", 5e6), ("region_time", "a2a_dispatch", 2e6))


def test_the_sum_of_the_regions_stands_beside_the_step() -> None:
    assert caption(*REGION_ROWS, ("step_latency", "", 10e6)) == (
        "Time per step, summed over layers. Sum of the regions, and the step without timers in other rounds: MoE 8 ms of 10 ms (-20%)."
    )
    assert caption(*REGION_ROWS) == "Time per step, summed over layers."


def test_exposed_communication_is_said_to_come_from_other_rounds() -> None:
    assert caption(*REGION_ROWS, ("comm_exposed_time", "", 3e6)).endswith(
        " Exposed communication is measured in rounds of its own, so it differs from these regions."
    )


def test_an_overhead_below_one_is_not_measurable() -> None:
    assert (
        overhead_sentence([0.97])
        == overhead_sentence([0.9, 1.0]).replace(" at most", "")
        == (" Instrumentation overhead: not measurable.")
    )
    assert overhead_sentence([1.008]) == " Instrumentation overhead: +0.8% per step."
