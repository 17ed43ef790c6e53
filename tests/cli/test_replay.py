"""`moeprof replay` as its users type it: on a log, on a run, with bad input; and what other commands make of its runs."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.records.run.run import Run
from tests.records.run.runs import value_of
from tests.studies.replay.logs import route_log, run_of_shape

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]

STEPS = [[0, 1], [2, 1], [0, 3], [0, 1]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Two layers, a prefill of two tokens, four decode steps."""
    return route_log(tmp_path / "talk.route.csv", STEPS, prefill=[[1, 2], [1, 3]], layers=2)


def test_a_replay_prints_the_full_report_into_a_pipe_as_markdown_and_leaves_the_same(
    moeprof: Call, log: Path, tmp_path: Path
) -> None:
    code, stdout, stderr = moeprof("replay", log, "--cache", "--full", "--out", tmp_path / "run")
    assert (code, stderr) == (0, "")
    assert stdout == (tmp_path / "run" / "report.md").read_text()
    assert stdout.startswith("# moeprof replay: talk\n")
    assert (tmp_path / "run" / "report.html").is_file()
    assert moeprof("report", tmp_path / "run", "--full")[1] == stdout


def test_the_default_folder_is_named_after_the_trace(moeprof: Call, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(log.parent)
    assert moeprof("replay", log, "--cache", "--slots", "2")[0] == 0
    assert [path.name.rpartition("-")[0] for path in (log.parent / "reports").iterdir()] == ["talk-replay"]


def test_replaying_needs_no_torch(log: Path, tmp_path: Path) -> None:
    arguments = ["replay", str(log), "--cache", "--slots", "2", "--out", str(tmp_path / "run")]
    code = f"import sys; from moeprof.cli import group; print(group.run({arguments}), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "0 False"


def test_json_is_one_document_with_every_metric(moeprof: Call, log: Path, tmp_path: Path) -> None:
    code, stdout, _ = moeprof(
        "replay", log, "--cache", "--slots", "2,3", "--policy", "lru,min", "--out", tmp_path / "run", "--json"
    )
    document = json.loads(stdout)
    assert code == 0
    assert len(document["metrics"]) == len(Run.open(tmp_path / "run").metrics)
    assert document["run"]["replay"]["policies"] == ["lru", "min"]
    points = {row["point"] for row in document["metrics"] if row["metric"] == "miss_rate"}
    assert points == {f"policy={policy};slots={slots}" for policy in ("lru", "min") for slots in (2, 3)}


def test_budgets_of_the_real_trace_agree_with_the_published_curve(moeprof: Call, shared_data: Path, tmp_path: Path) -> None:
    trace = shared_data / "traces" / "gemma.route.csv"
    asked = ("--budget", "250MiB,500MiB", "--access", "batch", "--policy", "min,lru,lfu")
    assert moeprof("replay", trace, "--cache", *asked, "--out", tmp_path / "run", "--json")[0] == 0
    run, compared = Run.open(tmp_path / "run"), 0
    with (shared_data / "traces" / "gemma-curve.csv").open() as file:
        for row in csv.DictReader(file):
            name = {"belady": "min", "lru": "lru", "lfu": "lfu"}.get(row["policy"])
            if name and row["budget_mib"] in ("250", "500"):
                at = {"variant": "imported", "point": f"policy={name};budget_bytes={int(row['budget_mib']) * 2**20}"}
                for phase, column in (("all", "hit_pct_cum"), ("decode", "hit_pct_decode")):
                    rate = value_of(run, "miss_rate", phase=phase, **at)
                    assert rate is not None
                    assert round(100 - 100 * rate, 3) == float(row[column])
                compared += 1
    assert compared == 6


def test_decode_alone_of_the_real_trace_agrees_with_an_independent_simulator(
    moeprof: Call, shared_data: Path, tmp_path: Path
) -> None:
    trace = shared_data / "traces" / "gemma.route.csv"
    known = json.loads((shared_data / "reference" / "perlayer_decode_misses.json").read_text())["traces"]["gemma"]["misses"]
    asked = ("--phase", "decode", "--slots", "8,16,32,64", "--policy", "lru,min,lifo")
    assert moeprof("replay", trace, "--cache", *asked, "--out", tmp_path / "run", "--json")[0] == 0
    run = Run.open(tmp_path / "run")
    for slots, misses in known.items():
        for policy, name in (("lru", "lru"), ("min", "belady_forced"), ("lifo", "lifo")):
            at = {"variant": "imported", "point": f"policy={policy};slots={slots}"}
            assert value_of(run, "misses", phase="decode", **at) == misses[name]


def test_a_run_and_a_file_of_it_say_the_same(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    made = run_of_shape(tmp_path / "made", str(micro("mt")))
    for path, out in ((made, "whole"), (made / "routing" / "decode-static-rank0.parquet", "part")):
        assert moeprof("replay", path, "--cache", "--phase", "decode", "--out", tmp_path / out)[0] == 0
    whole, part = Run.open(tmp_path / "whole"), Run.open(tmp_path / "part")
    assert whole.metrics.equals(part.metrics)
    assert whole.record.workload == "mt"
    assert (whole.record.replayed.trace.weight_bytes or 0) > whole.record.replayed.trace.routed_bytes > 0


def test_replays_are_compared_and_kept_as_baselines(
    moeprof: Call, log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ("--policy", "lru", "--slots", "2,3")
    for out, options in (("one", small), ("two", small), ("other", (*small, "--access", "batch"))):
        assert moeprof("replay", log, "--cache", *options, "--out", tmp_path / out)[0] == 0
    assert moeprof("compare", "one", "two", "--strict")[0] == 0
    assert moeprof("baseline", "save", "lab", "one")[0] == 0
    assert moeprof("compare", "reports/baselines/lab.json", "two")[0] == 0
    code, stdout, _ = moeprof("compare", "one", "other")
    assert code == 4
    assert "different settings: access" in stdout


def test_a_replay_of_other_routing_is_no_regression(moeprof: Call, log: Path, tmp_path: Path) -> None:
    other = route_log(tmp_path / "other.route.csv", [[0, 1]] * 4, prefill=[[1, 2], [1, 3]], layers=2)
    for path, out in ((log, "one"), (other, "two")):
        asked = ("--cache", "--phase", "decode", "--policy", "lru", "--slots", "2")
        assert moeprof("replay", path, *asked, "--out", tmp_path / out)[0] == 0
    code, stdout, _ = moeprof("compare", tmp_path / "one", tmp_path / "two", "--only", "misses", "--only", "miss_rate")
    assert code == 4
    assert "different routing" in stdout


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--cache", "--slots", "2", "--budget", "5KiB"), "--slots and --budget: both are given"),
        (("--cache", "--slots", "two"), "--slots two:"),
        (("--cache", "--slots", "2,,3"), "--slots : empty value"),
        (("--cache", "--slots", "0"), "--slots 0: must be at least 1"),
        (("--cache", "--budget", "1KB"), "--budget 1000 B: below one expert"),
        (("--cache", "--budget", "much"), "'much' is not a size"),
        (("--cache", "--policy", "lrv"), "unknown eviction policy 'lrv'"),
        (("--cache", "--bandwidth", "0GB/s"), "'0GB/s' is not a bandwidth"),
        (("--cache", "--bandwidth", "12GB/h"), "'12GB/h' is not a bandwidth"),
        (("--cache", "--overlap", "soon"), "'soon' is not a duration"),
        (("--cache", "--expert-bytes", "0"), "--expert-bytes 0: must be at least 1"),
        (("--cache", "--experts", "9"), "states 4 experts"),
        (("--balance", "--experts", "9"), "states 4 experts"),
        (("--cache", "--devices", "3"), "--devices 3: 4 experts cannot be divided equally"),
        (("--cache", "--variant", "tutel"), "no variant 'tutel'"),
    ],
)
def test_bad_input_is_two_lines_and_exit_code_2(
    moeprof: Call, log: Path, tmp_path: Path, options: tuple[str, ...], reason: str
) -> None:
    code, stdout, stderr = moeprof("replay", log, *options, "--out", tmp_path / "run")
    assert (code, stdout) == (2, "")
    assert reason in stderr
    assert len(stderr.splitlines()) == 2
    assert not (tmp_path / "run").exists()


def test_an_older_run_is_replaced_only_by_force(moeprof: Call, log: Path, tmp_path: Path) -> None:
    asked = ("replay", log, "--cache", "--slots", "2", "--out", tmp_path / "run")
    assert moeprof(*asked)[0] == 0
    code, _, stderr = moeprof(*asked)
    assert code == 2
    assert "it exists already" in stderr
    assert moeprof(*asked, "--force")[0] == 0


def test_without_a_choice_caches_and_placements_are_replayed(
    moeprof: Call, log: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code, stdout, _ = moeprof("replay", log, "--full", "--out", tmp_path / "both")
    assert code == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"replay {log}: caches and placements, because neither --cache nor --balance is given"
    ]
    assert stdout == "".join((tmp_path / "both" / part / "report.md").read_text() for part in ("caches", "placements"))
    for part, option in (("caches", "--cache"), ("placements", "--balance")):
        assert moeprof("replay", log, option, "--out", tmp_path / part)[0] == 0
        assert Run.open(tmp_path / "both" / part).metrics.equals(Run.open(tmp_path / part).metrics)


def test_options_of_both_kinds_are_allowed_if_both_are_replayed(moeprof: Call, log: Path, tmp_path: Path) -> None:
    asked = ("--cache", "--balance", "--slots", "2", "--policy", "lru", "--balancer", "greedy", "--devices", "2")
    code, stdout, _ = moeprof("replay", log, *asked, "--out", tmp_path / "both", "--json")
    assert code == 0
    caches, placements = (document["run"] for document in json.loads(stdout))
    assert (caches["replay"]["slots"], placements["balance"]["devices"]) == ([2], [2])


def test_without_a_choice_counts_are_placed_only(moeprof: Call, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    counts = {"news": [[4, 2, 1, 1]], "code": [[1, 1, 2, 4]]}
    (tmp_path / "loads.json").write_text(json.dumps({"top_k": 1, "layers": [0], "counts": counts}))
    assert moeprof("replay", tmp_path / "loads.json", "--out", tmp_path / "run")[0] == 0
    assert "placements only, because counts have no order" in caplog.text
    assert Run.open(tmp_path / "run").record.balance is not None


def test_offloading_systems_are_compared_on_one_screen_without_torch(log: Path, tmp_path: Path) -> None:
    arguments = ["replay", str(log), "--presets", "on-demand,infmoe,paper", "--slots", "2", "--out", str(tmp_path / "run")]
    code = f"import sys; from moeprof.cli import group; print(group.run({arguments}), 'torch' in sys.modules)"
    lines = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[-1] == "0 False"
    assert len(lines) <= 19
    for system in ("on-demand", "infmoe", "paper"):
        assert sum(line.startswith(f"{system}, decode") for line in lines) == 1
    assert (tmp_path / "run" / "report.html").is_file()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--cache"], "--presets: cannot be combined with --cache or --balance"),
        (["--slots", "1,2"], "--slots 1,2: --presets takes a single number of slots"),
        (["--policy", "lru"], "--policy: an option of --cache"),
        (["--devices", "2"], "--devices: an option of --cache"),
        (["--slots", "9"], "--slots 9: a layer has 4 experts"),
        (["--preset", "hobbit"], "preset hobbit: it decides by the weights of experts"),
    ],
)
def test_options_that_offloading_systems_do_not_have_are_refused(
    moeprof: Call, log: Path, tmp_path: Path, options: list[str], what: str
) -> None:
    code, stdout, stderr = moeprof("replay", log, "--presets", "on-demand", *options, "--out", tmp_path / "run")
    assert (code, stdout) == (2, "")
    assert what in stderr
    assert len(stderr.splitlines()) == 2


def test_presets_need_choices_in_order(moeprof: Call, tmp_path: Path) -> None:
    counts = tmp_path / "counts.json"
    counts.write_text(json.dumps({"num_experts": 2, "top_k": 1, "layers": [0], "domains": {"all": [[3, 4]]}}))
    code, _, stderr = moeprof("replay", counts, "--presets", "on-demand", "--out", tmp_path / "run")
    assert code == 2
    assert len(stderr.splitlines()) == 2
