"""`moeprof optimize` as its users type it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from moeprof.optimizations.registry import OPTIMIZATIONS
from moeprof.records.run.run import Run
from tests.records.run.runs import value_of

Call = Callable[..., tuple[int, str, str]]
Micro = Callable[[str], Path]


def labels(run: Run) -> list[object]:
    return [variant["label"] for variant in run.record.variants]


def test_a_flag_per_optimization_and_its_options_are_in_the_help(moeprof: Call) -> None:
    _, stdout, _ = moeprof("optimize", "--help")
    for optimization in OPTIMIZATIONS.values():
        assert f"--{optimization.name}" in stdout
        for option in optimization.options:
            value = f"[{'|'.join(option.choices)}]" if option.choices else option.metavar
            assert f"--{option.name} {value}".rstrip() in stdout


def test_it_prints_the_report_that_it_leaves(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    code, stdout, stderr = moeprof(
        "optimize", micro("lm"), "--dynamic-gating", "--no-sweep", "--full", "--out", tmp_path / "run"
    )
    assert (code, stderr) == (0, "")
    assert stdout == (tmp_path / "run" / "report.md").read_text()
    assert stdout.startswith("# moeprof optimize: lm-micro\n")
    assert "<html" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_the_sweep_gives_both_speedups_with_their_intervals(moeprof: Call, micro: Micro, tmp_path: Path, workload: str) -> None:
    budget = ("--set", "budget.memory=300KiB") if workload == "lm" else ("--set", "budget.memory=1MiB")
    rounds = ("--set", "measure.rounds=6")
    assert moeprof("optimize", micro(workload), "--dynamic-gating", *budget, *rounds, "--out", tmp_path / "run")[0] == 0
    run = Run.open(tmp_path / "run")
    assert run.record.valid
    for phase in run.record.recipe.phases:
        for metric in ("speedup_equal_batch", "speedup_max_throughput"):
            value, low, high = (
                value_of(run, f"{metric}{end}", phase=phase, variant="dynamic", category="static", domain="")
                for end in ("", "_low", "_high")
            )
            assert value is not None
            assert low is not None
            assert high is not None
            assert low <= value <= high


def test_none_named_means_all_and_the_kernel_is_an_option(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    assert moeprof("optimize", micro("lm"), "--no-sweep", "--out", tmp_path / "all")[0] == 0
    assert labels(Run.open(tmp_path / "all")) == ["static", "dynamic", "dynamic+buffered"]
    assert moeprof("optimize", micro("lm"), "--no-sweep", "--kernel", "loop", "--out", tmp_path / "loop")[0] == 0
    assert labels(Run.open(tmp_path / "loop")) == ["static", "dynamic+loop", "dynamic+loop+buffered"]


def test_against_is_repeatable(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    against = ("--against", "tutel", "--against", "dense", "--against", "static")
    _, stdout, _ = moeprof(
        "optimize", micro("mt"), "--dynamic-gating", "--no-sweep", *against, "--out", tmp_path / "run", "--json"
    )
    rows = [
        row for row in json.loads(stdout)["metrics"] if row["metric"] == "speedup_equal_batch" and row["variant"] == "dynamic"
    ]
    assert {row["category"] for row in rows} == {"tutel", "dense", "static"}


@pytest.mark.parametrize(
    "arguments", [("--against", "fairseq"), ("--kernel", "bmm"), ("--set", "budget.memory=lots"), ("--dynamic-gaiting",)]
)
def test_bad_arguments_are_usage_errors(moeprof: Call, micro: Micro, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    code, stdout, stderr = moeprof("optimize", micro("lm"), *arguments, "--out", tmp_path / "run")
    assert (code, stdout) == (2, "")
    assert stderr
    assert not (tmp_path / "run").exists()


def test_a_budget_that_not_even_one_sequence_fits_is_said_and_the_rest_stands(
    moeprof: Call, micro: Micro, tmp_path: Path
) -> None:
    code, stdout, _ = moeprof(
        "optimize", micro("lm"), "--dynamic-gating", "--set", "budget.memory=1KiB", "--full", "--out", tmp_path / "run"
    )
    run = Run.open(tmp_path / "run")
    assert (code, run.record.valid) == (0, True)
    assert "not even one sequence fits the memory budget of 1 KiB" in stdout
    assert "largest batch that fits" in stdout
    assert value_of(run, "speedup_max_throughput", phase="score", variant="dynamic", category="static") is None
    assert value_of(run, "speedup_equal_batch", phase="score", variant="dynamic", category="static") is not None


@pytest.mark.parametrize(
    ("layers", "num_experts", "what"),
    [
        ({"1": [[0, 1], [2]]}, 4, "layer 1: expert 3 is on no rank"),
        ({"1": [[0, 1, 1], [2, 3, 0]]}, 4, "layer 1: expert 1 is listed twice on rank 0"),
        ({"1": [[0, 1, 2, 3]]}, 4, "layer 1: made for 1 ranks, not 2"),
        ({"1": [[0], [1]]}, 2, "made for 2 experts, but the model has 4"),
        ({"3": [[0, 1], [2, 3]]}, 4, "layer 1 is missing"),
    ],
)
def test_a_placement_that_does_not_fit_is_refused_before_a_rank_starts(
    moeprof: Call, micro: Micro, tmp_path: Path, layers: dict[str, list[list[int]]], num_experts: int, what: str
) -> None:
    file, out = tmp_path / "p.json", tmp_path / "run"
    file.write_text(json.dumps({"schema_version": 1, "model_hash": "", "num_experts": num_experts, "layers": layers}))
    code, stdout, stderr = moeprof("optimize", micro("lm"), "--load-balancing", "--placement", file, "--ranks", 2, "--out", out)
    assert (code, stdout, stderr.count("\n")) == (2, "", 2)
    assert stderr.startswith(f"Error: placement {file}: {what}\n")
    assert not out.exists()


def test_one_rank_has_no_use_for_load_balancing(moeprof: Call, micro: Micro, tmp_path: Path) -> None:
    code, _, stderr = moeprof("optimize", micro("lm"), "--load-balancing", "--out", tmp_path / "run")
    assert code == 2
    assert stderr.startswith("Error: --load-balancing: a single rank has nothing to balance (use --ranks N)\n")
