"""A recorded run is derived again: what its raw files say becomes the table, and what they do not say stays as it was."""

import csv
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import COLUMNS
from moeprof.records.run.run import Run
from moeprof.studies.recompute import recompute
from tests.records.run.runs import edited

Micro = Callable[[str], Path]


@pytest.fixture
def run(characterized: Path, tmp_path: Path) -> Run:
    """A characterized micro model."""
    return Run.open(shutil.copytree(characterized, tmp_path / "run"))


def lines(run: Run) -> list[list[str]]:
    """The table as it is on disk, without its header."""
    with (run.path / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


def replaced(run: Run, change: Callable[[list[str]], list[str] | None]) -> None:
    """Rewrites the table on disk line by line; a line that becomes None goes."""
    kept = [changed for line in lines(run) if (changed := change(line)) is not None]
    with (run.path / "metrics.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([list(COLUMNS), *kept])


def metric_of(line: list[str]) -> str:
    return line[COLUMNS.index("metric")]


def test_a_run_of_this_version_is_derived_completely_and_equals_itself(run: Run) -> None:
    before, samples = lines(run), run.samples
    done = recompute(Run.open(run.path))
    assert lines(run) == before
    assert (done.num_derived, done.num_kept) == (len(before), 0)
    assert done.run.samples.equals(samples)


def test_a_table_that_is_missing_is_derived_as_it_was(run: Run) -> None:
    before = lines(run)
    (run.path / "metrics.csv").unlink()
    assert recompute(Run.open(run.path)).num_kept == 0
    assert lines(run) == before


def test_what_a_stopped_run_recorded_is_derived_and_what_it_recorded_in_part_is_left_out(run: Run) -> None:
    before = lines(run)
    edited(run.path, valid=False, reasons=["interrupted"])
    steps = run.path / "steps.parquet"
    pq.write_table(pq.read_table(steps).slice(0, 1), steps)
    for name in ("metrics.csv", "rounds.parquet"):
        (run.path / name).unlink()
    recompute(Run.open(run.path))
    assert 0 < len(lines(run)) < len(before)
    assert "throughput" not in map(metric_of, lines(run))


def test_a_value_that_an_old_formula_got_wrong_is_corrected(run: Run) -> None:
    before = lines(run)
    replaced(run, lambda line: [*line[:-1], "7.0"] if metric_of(line) == "load_cv" else line)
    assert lines(run) != before
    recompute(Run.open(run.path))
    assert lines(run) == before


def test_a_row_that_no_formula_makes_any_more_goes(run: Run) -> None:
    before = lines(run)
    invented = [*next(line for line in before if metric_of(line) == "load_cv" and line[COLUMNS.index("domain")])]
    invented[COLUMNS.index("domain")] = "gone"
    with (run.path / "metrics.csv").open("a", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerow(invented)
    recompute(Run.open(run.path))
    assert lines(run) == before


def test_rows_whose_raw_files_are_missing_stay_and_the_files_are_named(run: Run) -> None:
    before = lines(run)
    for name in ("rounds.parquet", "footprints.parquet"):
        (run.path / name).unlink()
    done = recompute(Run.open(run.path))
    assert sorted(lines(run)) == sorted(before)
    assert done.missing["memory"] == ["footprints.parquet"]
    assert done.missing["time"] == ["rounds.parquet"]
    kept = {metric_of(line) for line in before if metric_of(line).startswith(("memory_total", "throughput", "region_time"))}
    assert done.num_kept >= sum(metric_of(line) in kept for line in before)
    assert done.run.samples["metric"].eq("throughput").sum() == run.samples["metric"].eq("throughput").sum()


def test_a_run_of_an_older_version_loses_nothing(run: Run) -> None:
    """An older moeprof kept traces, samples and the table, and none of the raw tables."""
    before = lines(run)
    for file in run.path.glob("*.parquet"):
        if file.name not in ("samples.parquet", "memory.parquet"):
            file.unlink()
    done = recompute(Run.open(run.path))
    assert sorted(lines(run)) == sorted(before)
    derived = {metric_of(line) for line in before} & {"load_cv", "active_experts", "num_parameters", "hot_jaccard"}
    assert done.num_derived >= sum(metric_of(line) in derived for line in before) > 0


def test_a_damaged_raw_file_leaves_the_table_as_it_was(run: Run) -> None:
    before = (run.path / "metrics.csv").read_bytes()
    (run.path / "rounds.parquet").write_bytes(b"PAR1 cut")
    with pytest.raises(UsageError, match=r"rounds\.parquet is damaged"):
        recompute(Run.open(run.path))
    assert (run.path / "metrics.csv").read_bytes() == before


def test_the_command_reports_what_it_derived_and_rewrites_the_reports(
    run: Run, moeprof: Callable[..., tuple[int, str, str]]
) -> None:
    (run.path / "footprints.parquet").unlink()
    code, out, err = moeprof("report", run.path, "--recompute", "--format", "markdown")
    assert code == 0
    assert out.startswith("# moeprof characterize")
    assert f"{len(lines(run)) - memory_rows(run):,} rows derived, {memory_rows(run):,} kept" in err
    assert "memory: footprints.parquet missing" in err
    assert (run.path / "report.md").read_text() == out


def memory_rows(run: Run) -> int:
    """Rows that follow from the footprints alone."""
    return sum(
        metric_of(line).startswith(("memory_total_", "memory_dynamic_", "memory_peak", "memory_at_", "memory_vs_"))
        for line in lines(run)
    )


def test_no_torch_is_imported_for_it() -> None:
    code = "import moeprof.studies.recompute, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
