"""`moeprof compare` and `moeprof baseline` as a pipeline calls them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.analysis.comparison.measurement import read_baseline
from moeprof.reporters.comparison_formats.registry import FORMATS

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]


@pytest.fixture
def run(characterized: Path, tmp_path: Path) -> Path:
    """A run of the micro language model."""
    return shutil.copytree(characterized, tmp_path / "run")


def changed(run: Path, metric: str, factor: float) -> Path:
    """A copy of the run in which a metric of static gating over all is another one."""
    copy = run.with_name(f"{run.name}-{metric}")
    shutil.copytree(run, copy)
    lines = (copy / "metrics.csv").read_text().splitlines()
    for number, line in enumerate(lines):
        cells = line.split(",")
        if cells[1:4] == ["score", "", "static"] and cells[9] == metric and not any(cells[4:9]):
            lines[number] = ",".join([*cells[:-1], repr(float(cells[-1]) * factor)])
    (copy / "metrics.csv").write_text("\n".join(lines) + "\n")
    return copy


def test_a_run_is_no_worse_than_itself(moeprof: Call, run: Path) -> None:
    code, stdout, stderr = moeprof("compare", run, run)
    assert (code, stderr) == (0, "")
    assert len(stdout.splitlines()) <= 18
    assert "1 process per side; at least 3 are needed to judge speed" in " ".join(stdout.split())
    assert stdout.splitlines()[-1].endswith(f"`moeprof compare {run} {run} --full`")
    assert len(moeprof("compare", run, run, "--full")[1].splitlines()) > 100


def test_more_slots_are_a_regression_and_fewer_are_not(moeprof: Call, run: Path) -> None:
    code, stdout, _ = moeprof("compare", run, changed(run, "expert_slots", 1.25))
    assert code == 3
    assert "1 of " in stdout
    assert [line.split()[:2] for line in stdout.splitlines() if line.startswith("worse ")] == [["worse", "expert_slots"]]
    assert moeprof("compare", run, changed(run, "waste_factor", 0.5))[0] == 0


def test_a_threshold_lets_a_small_change_pass(moeprof: Call, run: Path) -> None:
    more = changed(run, "expert_slots", 1.04)
    assert moeprof("compare", run, more)[0] == 3
    assert moeprof("compare", run, more, "--threshold", "expert_slots=5%")[0] == 0
    assert moeprof("compare", run, more, "--only", "waste_factor")[0] == 0


def test_nothing_in_common_is_never_fine(moeprof: Call, micro: Micro, run: Path, tmp_path: Path) -> None:
    assert moeprof("characterize", micro("lm"), "--set", "gating.capacity_fraction=1.0", "--out", tmp_path / "other")[0] == 0
    code, stdout, _ = moeprof("compare", run, tmp_path / "other")
    assert code == 4
    assert "Nothing is comparable: different recipes: gating.capacity_fraction." in stdout


def test_json_names_the_verdict_and_every_format_is_written(moeprof: Call, run: Path, tmp_path: Path) -> None:
    files = [("--write", f"{form}={tmp_path / form}") for form in FORMATS]
    code, stdout, _ = moeprof(
        "compare", run, changed(run, "expert_slots", 2.0), "--json", *(cell for pair in files for cell in pair)
    )
    document = json.loads(stdout)
    assert (code, document["exit_code"]) == (3, 3)
    assert any(one["verdict"] == "worse" and "expert_slots" in str(one) for one in document["findings"])
    assert all((tmp_path / form).stat().st_size for form in FORMATS)


def test_a_baseline_is_saved_listed_shown_and_compared_with(
    moeprof: Call, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert moeprof("baseline", "save", "main", run)[0] == 0
    file = tmp_path / "reports" / "baselines" / "main.json"
    assert 1000 < file.stat().st_size <= 200_000
    assert moeprof("baseline", "list")[1].startswith("main: lm-micro (characterize, ")
    assert "waste_factor" in moeprof("baseline", "show", "main")[1]
    assert moeprof("compare", file, run)[0] == 0
    assert moeprof("compare", file, changed(run, "expert_slots", 1.5))[0] == 3
    assert moeprof("baseline", "save", "main", run)[0] == 2
    assert moeprof("baseline", "save", "main", run, "--only", "waste_factor", "--force")[0] == 0
    assert file.stat().st_size < 10_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("/nonexistent", "/nonexistent"),
        ("--threshold", "throughput=fast"),
        ("--threshold", "thruput=5%"),
        ("--only", "thruput"),
        ("--format", "pdf"),
        ("--write", "junit"),
    ],
)
def test_bad_arguments_are_usage_errors_in_two_lines(moeprof: Call, run: Path, arguments: tuple[str, ...]) -> None:
    sides = () if arguments[0].startswith("/") else (run, run)
    code, stdout, stderr = moeprof("compare", *sides, *arguments)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 2


@pytest.mark.parametrize("damage", ["{", '{"schema_version": 99}', '{"subjects": [{}]}', "[]", '{"subjects": [], "evil": 1}'])
def test_a_baseline_that_is_none_is_refused(moeprof: Call, run: Path, tmp_path: Path, damage: str) -> None:
    (tmp_path / "b.json").write_text(damage)
    code, _, stderr = moeprof("compare", tmp_path / "b.json", run)
    assert code == 2
    assert len(stderr.splitlines()) == 2


def test_a_name_that_leads_out_is_refused(moeprof: Call, run: Path) -> None:
    assert moeprof("baseline", "save", "../../x", run)[0] == 2
    assert moeprof("baseline", "save", ".x", run)[0] == 2


@pytest.mark.parametrize("damage", ["missing", "a row twice"])
@pytest.mark.parametrize(
    "command", [("report",), ("report", "--format", "csv"), ("compare", "{run}"), ("baseline", "save", "{folder}/b.json")]
)
def test_a_table_that_is_missing_or_has_a_row_twice_is_refused_everywhere(
    moeprof: Call, run: Path, tmp_path: Path, damage: str, command: tuple[str, ...]
) -> None:
    damaged = shutil.copytree(run, tmp_path / "damaged") / "metrics.csv"
    table = damaged.read_text()
    damaged.unlink()
    if damage == "a row twice":
        damaged.write_text(table + table.splitlines(keepends=True)[-1])
    words = [word.format(run=run, folder=tmp_path) for word in command]
    code, out, err = moeprof(*words, damaged.parent)
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith(f"Error: run {damaged.parent}: ")
    assert second.endswith(f"`moeprof report {damaged.parent} --recompute`.")


def test_an_unfinished_run_is_not_compared(moeprof: Call, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "unfinished"
    shutil.copytree(run, copy)
    record = json.loads((copy / "run.json").read_text())
    record["valid"], record["reasons"] = False, ["interrupted"]
    (copy / "run.json").write_text(json.dumps(record))
    code, stdout, _ = moeprof("compare", run, copy)
    assert code == 4
    assert "interrupted" in stdout
    assert moeprof("baseline", "save", str(tmp_path / "b.json"), copy)[0] == 2


# Measuring in interleaved rounds


def test_both_sides_are_measured_in_fresh_processes_and_kept(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    """The candidate works on eight times the tokens of a step: no remark of that is lost, and what is kept says the same again."""
    out = tmp_path / "kept"
    options = ("--a", "load.batch_size=1", "--b", "load.batch_size=16", "--set", "load.phases=['score']", "--processes", 3)
    code, stdout, _ = moeprof("compare", "--run-both", micro("lm"), *options, "--variant", "dynamic", "--out", out, "--json")
    document = json.loads(stdout)
    assert (document["baseline"], document["candidate"]) == ("A (load.batch_size=1)", "B (load.batch_size=16)")
    assert "lm-micro: load.batch_size 1, 16" in document["remarks"]
    (found,) = document["findings"]
    assert (found["phase"], found["variant"], found["metric"], found["gated"]) == ("score", "dynamic", "throughput", True)
    assert found["candidate"] > found["baseline"]
    assert [len(side.numbers[0].samples) for name in "ab" for side in read_baseline(out / f"{name}.json").subjects] == [3, 3]
    again = moeprof("compare", out / "a.json", out / "b.json", "--json")
    assert (again[0], json.loads(again[1])["findings"]) == (code, document["findings"])


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "compare: two sides are required"),
        (("reports/old",), "compare: two sides are required"),
        (
            ("reports/old", "--run-both", "lm-tiny"),
            "compare reports/old: recorded runs cannot be combined with --run-both",
        ),
        (
            ("reports/old", "reports/new", "--a", "load.batch_size=1"),
            "compare: load.batch_size=1 has no effect on recorded runs",
        ),
        (
            ("reports/old", "reports/new", "--device", "cuda"),
            "compare: measure.device=cuda has no effect on recorded runs",
        ),
    ],
)
def test_recorded_sides_and_measured_ones_are_not_mixed(moeprof: Call, words: tuple[str, ...], what: str) -> None:
    code, _, stderr = moeprof("compare", *words)
    assert code == 2
    assert stderr.startswith(f"Error: {what}")


def test_a_recipe_that_is_not_there_is_said_by_the_side_that_misses_it(moeprof: Call, tmp_path: Path) -> None:
    code, _, stderr = moeprof("compare", "--run-both", "lm-tinny", "--out", tmp_path / "kept")
    assert (code, stderr.splitlines()[0]) == (2, "Error: side A: recipe 'lm-tinny': unknown built-in recipe")
    assert not (tmp_path / "kept").exists()


def test_an_older_measurement_is_not_overwritten(moeprof: Call, tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("precious")
    code, _, stderr = moeprof("compare", "--run-both", "lm-tiny", "--out", tmp_path)
    assert (code, stderr.splitlines()[0]) == (2, f"Error: {tmp_path}/b.json: the file already exists")
