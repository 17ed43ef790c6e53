"""Characterization, end to end on small models."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from moeprof.instrument.load import LoadMeter, Usage
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.machine_load import MachineLoad
from moeprof.records.run.run import Run
from moeprof.studies.characterize import PASSES, characterization
from moeprof.studies.feasibility import check_memory, check_weights
from tests.records.run.runs import value_of

Micro = Callable[[str], Path]


def run(recipe: Path, out: Path, *overrides: str) -> Run:
    return characterization().run(load_recipe(str(recipe), overrides), out)


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_a_run_is_valid_and_complete(micro: Micro, tmp_path: Path, workload: str) -> None:
    found = Run.open(run(micro(workload), tmp_path / "run").path)
    assert found.record.valid
    assert found.record.reasons == []
    assert {trace.header.phase for trace in found.traces} == {"lm": {"score", "decode"}, "mt": {"encode", "decode"}}[workload]
    assert set(found.metrics["variant"]) == {"static", "dense"}
    assert set(found.metrics["kind"]) <= {"exact", "routed", "timed"}


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_the_same_recipe_gives_the_same_trace_and_the_same_exact_metrics_byte_for_byte(
    micro: Micro, tmp_path: Path, workload: str
) -> None:
    recipe = micro(workload)
    one, other = (run(recipe, tmp_path / name) for name in ("one", "other"))
    for file in sorted((one.path / "routing").iterdir()):
        assert file.read_bytes() == (other.path / "routing" / file.name).read_bytes()
    lines = [
        [line for line in (found.path / "metrics.csv").read_text().splitlines() if ",exact," in line or ",routed," in line]
        for found in (one, other)
    ]
    assert len(lines[0]) > 50
    assert lines[0] == lines[1]


@pytest.mark.usefixtures("device")
def test_slots_do_not_depend_on_the_routing_and_match_the_formula(micro: Micro, tmp_path: Path) -> None:
    natural = run(micro("lm"), tmp_path / "natural")
    forced = run(micro("lm"), tmp_path / "forced", "routing.source=zipf:3,sorted")
    # S = 2 x 12 tokens, c = ceil(0.5 x 24) = 12, E = 4 -> 48 slots for 2 x 24 choices
    for found in (natural, forced):
        assert value_of(found, "expert_slots", phase="score", variant="static") == 48
        assert value_of(found, "waste_factor", phase="score", variant="static") == 1.0
        # one token of each of 2 sequences: c = 1, 4 slots for 4 choices
        assert value_of(found, "expert_slots", phase="decode", variant="static") == 4


@pytest.mark.usefixtures("device")
def test_counts_in_the_table_are_those_of_the_trace(micro: Micro, tmp_path: Path) -> None:
    found = run(micro("lm"), tmp_path / "run")
    trace = found.trace("score", "static")
    assert trace is not None
    steps, experts, dropped = (trace.column(name) for name in ("step", "expert", "dropped"))
    active = [len(set(experts[steps == step])) for step in np.unique(steps)]
    assert value_of(found, "active_experts", phase="score", variant="static", layer="1") == pytest.approx(np.mean(active))
    assert value_of(found, "dropped_fraction", phase="score", variant="static", layer="1") == pytest.approx(np.mean(dropped))
    kept = [np.bincount(experts[(steps == step) & ~dropped], minlength=4).max() for step in np.unique(steps)]
    assert max(kept) <= 12


@pytest.mark.usefixtures("device")
def test_several_texts_are_kept_apart_in_every_table(micro: Micro, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / f"{name}.txt").write_text(f"The text called {name}. " * 20)
    recipe = load_recipe(str(micro("lm")))
    files = {name: str(tmp_path / f"{name}.txt") for name in ("one", "two")}
    found = characterization().run(
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"files": files})}), tmp_path / "run"
    )
    for metric in ("throughput", "waste_factor", "active_experts", "dropped_fraction"):
        rows = found.metrics[found.metrics["metric"] == metric]
        assert set(rows["domain"]) == {"", "one", "two"}
    assert set(found.record.text_hashes) == {"one", "two"}


@pytest.mark.usefixtures("device")
def test_forced_routing_is_labelled_forced(micro: Micro, tmp_path: Path) -> None:
    metrics = run(micro("lm"), tmp_path / "run", "routing.source=uniform").metrics.set_index("metric")
    assert set(metrics.loc["active_experts", "kind"]) == {"forced"}
    assert set(metrics.loc["capacity", "kind"]) == {"exact"}


@pytest.mark.usefixtures("device")
def test_a_recorded_trace_replays_to_the_same_decisions_on_other_weights(micro: Micro, tmp_path: Path) -> None:
    first = run(micro("mt"), tmp_path / "first")
    other = run(micro("mt"), tmp_path / "other", "measure.seed=7", 'load.phases=["encode"]')
    replayed = run(
        micro("mt"), tmp_path / "replayed", f"routing.source=trace:{first.path}", "measure.seed=7", 'load.phases=["encode"]'
    )
    experts = [found.trace("encode", "static").column("expert") for found in (first, other, replayed)]
    assert (experts[0] != experts[1]).any()
    assert (experts[0] == experts[2]).all()


def test_time_comes_from_the_injected_clock(micro: Micro, tmp_path: Path, device: str) -> None:
    ticks = itertools.count(step=1_000)
    found = characterization().run(load_recipe(str(micro("lm"))), tmp_path / "run", clock=lambda: next(ticks))
    # Every timed piece takes one tick. A score round is one step; a decode round is three, and on a CPU its four marks take a tick each.
    decode_ticks = 5 if device == "cpu" else 1
    assert value_of(found, "step_latency", phase="score", domain="prose", variant="static") == 1_000
    assert value_of(found, "step_latency", phase="decode", domain="prose", variant="dense") == pytest.approx(
        decode_ticks * 1_000 / 3
    )
    assert value_of(found, "slowdown_vs_dense", phase="score", variant="static") == 1.0
    # 2 sequences of 12 tokens in 1,000 ns
    assert value_of(found, "throughput", phase="score", domain="prose", variant="static") == pytest.approx(24e6)


def test_few_rounds_make_a_run_invalid(micro: Micro, tmp_path: Path) -> None:
    found = run(micro("lm"), tmp_path / "run", "measure.rounds=2")
    assert not found.record.valid
    assert "too few rounds" in found.record.reasons[0]


@pytest.mark.usefixtures("device")
def test_a_text_too_short_for_a_prompt_leaves_out_decoding_and_says_so(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("ab")
    recipe = load_recipe(str(micro("lm")))
    data = recipe.data.model_copy(update={"files": {"short": str(tmp_path / "short.txt")}})
    found = characterization().run(recipe.model_copy(update={"data": data}), tmp_path / "run")
    assert found.record.valid
    assert found.trace("decode", "static") is None
    assert "decode" in found.record.notes[0]


def test_a_failure_leaves_a_readable_run_marked_invalid(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr("moeprof.studies.characterize.PASSES", (fail,))
    with pytest.raises(RuntimeError, match="planted"):
        run(micro("lm"), tmp_path / "run")
    left = Run.open(tmp_path / "run")
    assert not left.record.valid
    assert left.record.reasons == ["failed: planted"]


@contextmanager
def endless_run(recipe: Path, out: Path, until: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that would measure for hours, once the run holds the file `until`; it is gone when the block ends."""
    command = [
        sys.executable,
        "-m",
        "moeprof",
        "characterize",
        str(recipe),
        "--out",
        str(out),
        "--set",
        "measure.rounds=10000",
    ]
    process = subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell that puts the tests in the background has them, and what they start, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline = time.monotonic() + 60
        while not (out / until).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_leaves_a_readable_run_marked_invalid(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with endless_run(micro("lm"), out, until="routing") as process:
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
        assert process.stderr is not None
        assert b"interrupted" in process.stderr.read()
    assert process.returncode == 130
    left = Run.open(out)
    assert not left.record.valid
    assert left.record.reasons == ["interrupted"]
    assert len(left.metrics) > 10
    assert "NOT VALID" in (out / "report.md").read_text()


def test_a_killed_run_reads_as_not_finished(micro: Micro, tmp_path: Path) -> None:
    with endless_run(micro("lm"), tmp_path / "run", until="run.json"):
        pass
    left = Run.open(tmp_path / "run")
    assert not left.record.valid
    assert left.record.reasons == ["not finished"]


def test_too_little_memory_names_the_largest_batch_that_fits() -> None:
    recipe = load_recipe("lm-small", ["load.batch_size=64"])
    with pytest.raises(MoeprofError) as caught:
        check_memory(recipe, 8 * 2**30)
    fitting = int(caught.value.remedy.split("batch_size=")[1].split(",")[0])
    check_memory(load_recipe("lm-small", [f"load.batch_size={fitting}"]), 8 * 2**30)
    with pytest.raises(MoeprofError):
        check_memory(load_recipe("lm-small", [f"load.batch_size={fitting + 1}"]), 8 * 2**30)


def test_weights_that_cannot_fit_are_refused_before_anything_is_allocated() -> None:
    with pytest.raises(MoeprofError, match=r"lm-52b: needs .* GiB on cpu"):
        characterization().run(load_recipe("lm-52b", ["measure.device=cpu"]), Path("/nonexistent/run"))


def test_a_batch_beyond_the_budget_runs_and_is_remarked_upon(micro: Micro, tmp_path: Path) -> None:
    """The budget bounds a sweep; what the recipe asks for is measured, and the reader told which contenders need more."""
    free = run(micro("lm"), tmp_path / "free")
    needs = {
        variant: int(value_of(free, "memory_total_peak", phase="score", variant=variant) or 0)
        for variant in ("static", "dense")
    }
    assert not any("budget" in note for note in free.record.notes)
    between = sum(needs.values()) // 2
    found = run(micro("lm"), tmp_path / "tight", f"budget.memory={between}", 'load.phases=["score"]')
    assert found.record.valid
    (note,) = [note for note in found.record.notes if "budget" in note]
    assert note.startswith("score: one batch of 2 under static needs")
    assert needs["dense"] < between < needs["static"]


def test_a_damaged_checkpoint_is_refused_before_the_run_begins(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    recipe = load_recipe(str(micro("lm")), [f"model.checkpoint={tmp_path / 'bad.safetensors'}"])
    with pytest.raises(UsageError, match=r"truncated, or not a safetensors file"):
        check_weights(recipe)
    with pytest.raises(UsageError):
        characterization().run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cuda_without_a_device_is_refused(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(MoeprofError, match="finds no CUDA device"):
        run(micro("lm"), tmp_path / "run", "measure.device=cuda")


def test_real_text_of_both_workloads_runs(micro: Micro, tmp_path: Path, shared_data: Path) -> None:
    lm, mt = load_recipe(str(micro("lm"))), load_recipe(str(micro("mt")), ["load.sequence_length=60"])
    texts: dict[str, str | list[str]] = {
        "wikipedia": str(shared_data / "lm/wikitext2.test.txt"),
        "github": str(shared_data / "lm/olmoe_github_code.txt.gz"),
    }
    pairs: dict[str, str | list[str]] = {"ne-en": [str(shared_data / f"mt/devtest.ne-en.{side}") for side in ("ne", "en")]}
    for recipe, files in ((lm, texts), (mt, pairs)):
        data = recipe.data.model_copy(update={"files": files})
        found = characterization().run(recipe.model_copy(update={"data": data}), tmp_path / recipe.workload)
        assert found.record.valid
        assert list(found.record.text_hashes) == list(files)
        assert json.loads((found.path / "run.json").read_text())["recipe"]["data"]["files"] == files


def test_the_load_of_the_machine_is_read_before_the_passes_and_after_every_one(micro: Micro, tmp_path: Path) -> None:
    readings = [Usage(10 * number, 5 * number, 0, 4 * number) for number in range(50)]
    source = iter(readings)
    meter = LoadMeter(lambda: next(source), before=lambda: 0.5)
    found = characterization().run(load_recipe(str(micro("lm"))), tmp_path / "run", meter=meter)
    assert Run.open(found.path).record.machine_load == MachineLoad(before=0.5, others=0.1, stolen=0)
    passes, phases = len(PASSES), 2
    assert next(source) == readings[1 + passes * phases]
