"""`moeprof replay --balance` as its users type it."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.records.placement import Placement
from tests.reporters.page.origins import words
from tests.studies.replay.logs import route_log
from tests.studies.replay.test_placements import skewed

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return skewed(tmp_path / "talk.parquet")


def test_the_report_says_whether_it_is_worth_it_and_is_written_again(moeprof: Call, trace: Path, tmp_path: Path) -> None:
    code, stdout, stderr = moeprof(
        "replay", trace, "--balance", "--devices", "2,4", "--token-bytes", "1KiB", "--full", "--out", tmp_path / "run"
    )
    assert (code, stderr) == (0, "")
    assert stdout.startswith("# moeprof replay: talk\n")
    summary = stdout.partition("## Phase")[0]
    assert "- Placement (decode, 4 devices, 64 tokens per step): mean-square, recommended. " in summary
    assert "Threshold: busiest-device share below " in summary
    assert "All-to-all (modelled): " in summary
    assert stdout == (tmp_path / "run" / "report.md").read_text() == moeprof("report", tmp_path / "run", "--full")[1]
    assert "Placement (decode, 4 devices, 64 tokens per step): mean-square" in words(
        (tmp_path / "run" / "report.html").read_text()
    )
    assert summary.count("\n- ") <= 10


def test_several_domains_place_for_each_other(moeprof: Call, tmp_path: Path) -> None:
    trace = skewed(tmp_path / "talk.parquet", domains=("prose", "code"))
    code, stdout, _ = moeprof("replay", trace, "--balance", "--devices", "4", "--full", "--out", tmp_path / "run")
    assert code == 0
    assert "- Other texts: if one domain decides the placement and another is tested, " in stdout
    assert stdout.count("| prose   | code ") == 1
    assert "| prose vs code " in stdout


def test_a_placement_is_written(moeprof: Call, trace: Path, tmp_path: Path) -> None:
    options = ("--balance", "--balancer", "greedy", "--devices", 4, "--save-placement", tmp_path / "p.json", "--json")
    code, stdout, _ = moeprof("replay", trace, *options, "--out", tmp_path / "run")
    assert code == 0
    assert json.loads(stdout)["run"]["balance"]["balancers"] == ["contiguous", "greedy"]
    assert len(Placement.read(tmp_path / "p.json").layers["1"]) == 4


def test_a_saved_expert_that_is_twice_on_a_rank_is_remarked_at_once_and_in_the_report(
    moeprof: Call, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ("--balance", "--devices", 2, "--replicas", 3, "--save-placement", tmp_path / "p.json", "--out", tmp_path / "run")
    trace = skewed(tmp_path / "few.parquet", num_experts=4)
    assert moeprof("replay", trace, "--balancer", "eplb", *options)[0] == 0
    (line,) = caplog.messages
    assert line.startswith(f"{tmp_path}/p.json: layer ")
    assert line.endswith("for which eplb-distinct places no expert twice on a device")
    assert "is listed twice on rank" in (tmp_path / "run" / "report.md").read_text()
    caplog.clear()
    assert moeprof("replay", trace, "--balancer", "eplb-distinct", *options, "--force")[0] == 0
    assert not caplog.messages


def test_a_replay_of_placements_compares_with_itself(moeprof: Call, trace: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert moeprof("replay", trace, "--balance", "--devices", "4", "--out", tmp_path / name)[0] == 0
    assert (tmp_path / "one" / "metrics.csv").read_bytes() == (tmp_path / "two" / "metrics.csv").read_bytes()
    assert moeprof("compare", tmp_path / "one", tmp_path / "two", "--only", "avg_max_load")[0] == 0


def test_folders_of_both_replays_are_compared_pair_by_pair(moeprof: Call, trace: Path, tmp_path: Path) -> None:
    options = ("--policy", "lru", "--slots", 4, "--balancer", "greedy")
    for name in ("one", "two", "other"):
        devices = 2 if name == "other" else 4
        assert moeprof("replay", trace, *options, "--devices", devices, "--out", tmp_path / name)[0] == 0
        assert {path.name for path in (tmp_path / name).iterdir()} == {"caches", "placements"}
    code, stdout, stderr = moeprof("compare", tmp_path / "one", tmp_path / "two", "--json")
    assert (code, stderr) == (0, "")
    compared = {one["metric"] for one in json.loads(stdout)["findings"]}
    assert {"misses", "avg_max_load"} <= compared
    assert moeprof("baseline", "save", tmp_path / "base.json", tmp_path / "one")[0] == 0
    code, stdout, _ = moeprof("compare", tmp_path / "base.json", tmp_path / "two", "--json")
    assert (code, {one["metric"] for one in json.loads(stdout)["findings"]}) == (0, compared)
    code, stdout, _ = moeprof("compare", tmp_path / "one", tmp_path / "other", "--json")
    verdicts = {one["metric"]: one["verdict"] for one in json.loads(stdout)["findings"]}
    assert verdicts["avg_max_load"] in ("new", "removed")


def test_replaying_placements_needs_no_torch(trace: Path, tmp_path: Path) -> None:
    arguments = ["replay", str(trace), "--balance", "--devices", "2", "--out", str(tmp_path / "run")]
    code = f"import sys; from moeprof.cli import group; print(group.run({arguments}), 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert out.splitlines()[-1] == "0 False"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--cache", "--nodes", "2"), "--nodes: an option of --balance"),
        (("--balance", "--slots", "2"), "--slots: an option of --cache"),
        (("--cache", "--devices", "2,4"), "--devices 2,4: --cache takes a single number of devices"),
        (("--balance", "--devices", "0"), "--devices 0: must be at least 1"),
        (("--balance", "--devices", "4", "--nodes", "8"), "--devices 4: not divisible over 8 nodes"),
        (("--balance", "--balancer", "greedi"), "unknown balancer 'greedi'"),
        (("--balance", "--node-bandwidth", "fast"), "--node-bandwidth fast"),
        (("--balance", "--token-bytes", "0"), "--token-bytes 0"),
        (("--balance", "--replicas", "-1"), "--replicas -1: must be at least 0"),
        (("--balance", "--replicas", "1,2", "--balancer", "greedy"), "--replicas 1,2: no balancer of --balancer makes copies"),
        (("--cache", "--every", "2"), "--every: an option of --balance"),
        (("--balance", "--window", "2"), "--window: an option of --every"),
        (("--balance", "--moves", "2"), "--moves: an option of --every"),
        (("--balance", "--expert-time", "2ms"), "--expert-time: an option of --every"),
        (("--balance", "--every", "0"), "--every 0: must be at least 1"),
        (("--balance", "--every", "4", "--window", "0"), "--window 0: must be at least 1"),
        (("--balance", "--every", "4", "--moves", "0"), "--moves 0: must be at least 1"),
        (("--balance", "--every", "4", "--expert-time", "0s"), "--expert-time: must be more than 0"),
        (
            ("--balance", "--every", "4", "--window", "36"),
            "--every 4: to place again from 36 steps needs 41 steps (--window + --every + 1); the trace has 40 in decode",
        ),
    ],
)
def test_what_makes_no_sense_is_answered_in_two_lines(moeprof: Call, trace: Path, options: tuple[str, ...], what: str) -> None:
    code, stdout, stderr = moeprof("replay", trace, *options)
    assert (code, stdout) == (2, "")
    assert what in stderr
    assert len(stderr.strip().splitlines()) == 2


def test_a_total_is_placed_without_a_verdict_and_phases_of_counts_are_refused(moeprof: Call, tmp_path: Path) -> None:
    path, placed, out = tmp_path / "counts.json", tmp_path / "p.json", tmp_path / "run"
    path.write_text(json.dumps({"top_k": 2, "layers": [0], "counts": {"a": [[30, 20, 5, 1]]}}))
    options = ("--balance", "--balancer", "greedy", "--devices", "2", "--save-placement", placed, "--out", out)
    code, answered, stderr = moeprof("replay", path, *options)
    assert (code, stderr) == (0, "")
    assert "computed and judged on the same totals, because there are no held-out steps" in " ".join(answered.split())
    stdout = moeprof("report", out, "--full")[1]
    # by hand: 30 + 20 of 56 on one device, or 30 + 1 and 20 + 5
    assert (
        "- Placement (2 devices): computed and judged on the same totals, because there are no held-out steps. The busiest device gets "
        "55.4% of all choices under greedy, 89.3% under contiguous placement (ideal 50.0%, floor without copies 53.6%). What remains of "
        "that on other text is unknown." in stdout
    )
    assert Placement.read(placed).layers == {"0": ((0, 3), (1, 2))}
    rows = (out / "metrics.csv").read_text()
    assert ",load_gain," not in rows
    assert ",test_steps," not in rows
    assert "placements are computed and judged on the same totals" in (out / "run.json").read_text()
    assert moeprof("report", out, "--recompute")[0] == 0
    assert (out / "metrics.csv").read_text() == rows
    assert (
        "has totals, which have no order of steps" in moeprof("replay", path, "--balance", "--every", "1", "--devices", "2")[2]
    )
    assert "a count table has no phases" in moeprof("replay", path, "--balance", "--phase", "decode")[2]


def test_loads_of_steps_without_the_experts_of_a_token_are_reported_as_choices(moeprof: Call, tmp_path: Path) -> None:
    meta = {"record_type": "eplb_load_meta", "version": 1, "num_layers": 1, "num_redundant_experts": 0}
    step = {"record_type": "eplb_load_stats", "version": 1, "expert_load": [[30, 20, 5, 1]], "p2l_map": [[0, 1, 2, 3]]}
    path, out = tmp_path / "loads.jsonl", tmp_path / "run"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [meta, *(step | {"step": number} for number in range(4))]))
    for options, traced, sized in (
        ((), "; the experts of a token are not known; history + test steps", "2 devices, 56 choices per step"),
        (("--top-k", 2), ", top-2; history + test steps", "2 devices, 28 tokens per step"),
    ):
        code, stdout, _ = moeprof("replay", path, "--balance", "--devices", "2", *options, "--full", "--out", out, "--force")
        assert code == 0
        assert f"Trace: 4 experts in each of 1 layers{traced}: 2 + 2 in all." in stdout
        assert sized in stdout
        assert "top-1" not in stdout


def test_a_log_of_a_single_prompt_says_that_its_evidence_is_little(moeprof: Call, tmp_path: Path) -> None:
    log = route_log(tmp_path / "talk.route.csv", [[0, 1], [2, 1], [0, 3], [0, 1]])
    code, stdout, _ = moeprof(
        "replay", log, "--balance", "--balancer", "greedy", "--devices", "2", "--full", "--out", tmp_path / "run"
    )
    assert code == 0
    assert "Placement (decode, 2 devices, 1 token per step): greedy, too little evidence." in stdout
    assert "About 10 such test steps would decide" in stdout


@pytest.mark.parametrize("devices", ["3", "16", "3,16"])
def test_devices_that_the_experts_never_fill_are_refused(moeprof: Call, trace: Path, tmp_path: Path, devices: str) -> None:
    code, stdout, stderr = moeprof("replay", trace, "--balance", "--devices", devices, "--out", tmp_path / "run")
    assert (code, stdout) == (2, "")
    assert stderr == f"Error: --devices {devices}: 8 experts cannot be divided equally\nGive a divisor of that number.\n"


def test_the_verdict_is_about_devices_that_the_experts_fill_and_names_the_others(
    moeprof: Call, trace: Path, tmp_path: Path
) -> None:
    stdout = moeprof("replay", trace, "--balance", "--devices", "4,7,5", "--out", tmp_path / "run")[1]
    told = " ".join(stdout.split())
    assert "in decode (64 tokens per step), the busiest of 4 devices gets " in told
    assert "Left out: 5 and 7 devices, over which 8 experts cannot be divided equally." in told
