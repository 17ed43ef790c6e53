"""A history has the runs of each recipe in the order of their times, each compared with the one before it."""

import json
import os
import shutil
from pathlib import Path

import pytest

from moeprof.analysis.comparison.history import HistoryEntry, RunHistory, histories
from moeprof.analysis.comparison.measurement import read_measurements, write_baseline
from moeprof.analysis.comparison.verdicts import Rules
from moeprof.records.errors import UsageError

RULES = Rules({})


def copied(run: Path, to: Path, began: str, *, slots: float = 1.0) -> Path:
    """A copy of a run that began at another time, with more expert slots."""
    shutil.copytree(run, to)
    record = json.loads((to / "run.json").read_text())
    (to / "run.json").write_text(json.dumps(record | {"started": began}))
    lines = []
    for line in (to / "metrics.csv").read_text().splitlines():
        *cells, value = line.split(",")
        lines.append(",".join([*cells, repr(float(value) * slots)]) if "expert_slots" in cells else line)
    (to / "metrics.csv").write_text("\n".join(lines) + "\n")
    return to


def test_runs_are_taken_in_the_order_of_their_times_and_compared_with_the_one_before(
    characterized: Path, tmp_path: Path
) -> None:
    copied(characterized, tmp_path / "a", "2026-03-03T00:00:00+00:00", slots=2)
    copied(characterized, tmp_path / "b", "2026-01-01T00:00:00+00:00")
    copied(characterized, tmp_path / "c", "2026-02-02T00:00:00+00:00")
    (history,) = histories([tmp_path], RULES)
    assert [one.name for one in history.entries] == ["b", "c", "a"]
    assert (history.recipe, history.command) == ("lm-micro", "characterize")
    found = [one.comparison for one in history.entries]
    assert found[0] is None
    assert [[] if one is None else [f.metric for f in one.of("worse")] for one in found][1] == []
    assert found[2] is not None
    assert {one.metric for one in found[2].of("worse")} == {"expert_slots"}
    assert (found[2].baseline, found[2].candidate) == ("c", "a")


def test_a_folder_of_processes_is_one_entry_and_a_baseline_file_another(characterized: Path, tmp_path: Path) -> None:
    for number in range(3):
        copied(characterized, tmp_path / "monday" / str(number), f"2026-01-01T00:00:0{number}+00:00")
    write_baseline(tmp_path / "old.json", read_measurements(characterized))
    os.utime(tmp_path / "old.json", (0, 0))
    (history,) = histories([tmp_path], RULES)
    assert [(one.name, one.started[:10]) for one in history.entries] == [("old.json", "1970-01-01"), ("monday", "2026-01-01")]
    monday = history.entries[1].measurement
    assert {len(number.samples) for number in monday.numbers if number.address in history.followed} == {3}


def test_throughputs_are_followed_that_every_entry_has(characterized: Path) -> None:
    (whole,) = read_measurements(characterized)
    scored = [one for one in whole.numbers if one.address.phase != "decode"]
    entries = [
        HistoryEntry("a", "2026-01-01", whole),
        HistoryEntry("b", "2026-01-02", whole.model_copy(update={"numbers": tuple(scored)})),
    ]
    phases = {one.address.phase for one in whole.numbers if one.address.metric == "throughput"}
    assert phases == {"score", "decode"}
    history = RunHistory("lm-micro", "characterize", entries)
    assert {address.phase for address in history.followed} == {"score"}
    assert all(len(history.values(address)) == 2 for address in history.followed)


@pytest.mark.parametrize("kind", ["empty", "one", "missing"])
def test_what_has_no_two_runs_is_refused(characterized: Path, tmp_path: Path, kind: str) -> None:
    place = tmp_path / "runs"
    if kind != "missing":
        place.mkdir()
    if kind == "one":
        copied(characterized, place / "a", "2026-01-01")
    with pytest.raises(UsageError) as refused:
        histories([place], RULES)
    assert refused.value.what.startswith(f"{place}: ")
    assert refused.value.remedy
