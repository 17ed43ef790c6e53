"""The light of a run: a busy machine is said before anything else that makes numbers doubtful."""

from pathlib import Path

import pytest

from moeprof.analysis.run_metrics import RunMetrics
from moeprof.records.run.machine_load import MachineLoad
from moeprof.records.run.run import Run
from moeprof.reporters.documents.answers.light import light_of
from moeprof.reporters.documents.summary import MAX_LINES, summary, with_warnings
from tests.records.run.runs import run_of

BUSY = MachineLoad(before=0.1, others=0.45, stolen=0.004)
SENTENCE = (
    "The machine was busy: other processes used 45.0% of its processor time. "
    "Repeat the run on a quiet machine before you quote a time."
)


@pytest.fixture
def busy(tmp_path: Path) -> Run:
    return run_of(tmp_path / "run", machine_load=BUSY, noisy=["score, static, prose: rounds vary by 20%"])


def test_a_busy_machine_is_the_first_reason(busy: Run) -> None:
    light = light_of(busy, doubts=["Something else."])
    assert light.level == "doubtful"
    assert light.reasons[0] == SENTENCE
    assert light.reasons[1] == "1 timing is noisy (IQR > 10% of the median)."
    assert light.reasons[-1] == "Something else."
    assert summary(busy, RunMetrics.of(busy))[0] == SENTENCE
    assert with_warnings(busy, ["line"] * 20)[0] == SENTENCE
    assert len(with_warnings(busy, ["line"] * 20)) == MAX_LINES


def test_a_quiet_machine_and_runs_of_older_versions_are_not_doubted(tmp_path: Path) -> None:
    assert light_of(run_of(tmp_path / "old")).level == "good"
    noisy = light_of(run_of(tmp_path / "noisy", noisy=["score, static, prose: rounds vary by 20%"]))
    assert noisy.reasons == ["1 timing is noisy (IQR > 10% of the median). Re-run on a quiet machine before you quote it."]
    assert light_of(run_of(tmp_path / "quiet", machine_load=MachineLoad(before=2, others=0.01, stolen=0))).level == "good"


def test_stolen_time_and_a_load_average_without_counts_are_named(tmp_path: Path) -> None:
    stolen = run_of(tmp_path / "stolen", machine_load=MachineLoad(others=0.002, stolen=0.2))
    assert (
        light_of(stolen).reasons[0].startswith("The machine was busy: other virtual machines used 20.0% of its processor time.")
    )
    before = run_of(tmp_path / "before", machine_load=MachineLoad(before=1.5))
    assert "1.5 processes per core were runnable in the minute before the run" in light_of(before).reasons[0]
