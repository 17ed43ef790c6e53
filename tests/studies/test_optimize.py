"""Optimization, end to end on small models: who runs, what is compared, and what becomes of a run that fails."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from moeprof.models.build import Model
from moeprof.moe.layer import moe_layers
from moeprof.optimizations.optimization import Optimization, Settings
from moeprof.optimizations.registry import OPTIMIZATIONS
from moeprof.records.errors import MoeprofError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run
from moeprof.studies import optimize
from moeprof.studies.optimize import PASSES, optimization
from moeprof.studies.passes import sweep
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.time import measure_time

from .runs import Micro, values, with_weights

DYNAMIC = ["dynamic-gating"]
LOOP = {"kernel": "loop"}
BUDGET = "budget.memory=150KiB"
TINY = load_recipe("lm-tiny", [])


def run(recipe: Path, out: Path, *overrides: str, clock: Callable[[], int] | None = None, **options: object) -> Run:
    """Dynamic gating against static, without a sweep where nothing else is said."""
    resolved = load_recipe(str(recipe), overrides)
    study = optimization(resolved, DYNAMIC, LOOP, **({"sweep": False} | options))  # type: ignore[arg-type]
    return study.run(resolved, out, clock=clock)


# Who runs


@pytest.mark.parametrize(
    ("against", "contenders", "told"),
    [
        (["static"], ["static", "dynamic+loop"], ["static"]),
        (["tutel"], ["tutel", "dynamic+loop"], ["tutel"]),
        (["tutel-dropless"], ["tutel-dropless", "dynamic+loop"], ["tutel-dropless"]),
        (["dense"], ["static", "dense", "dynamic+loop"], ["dense"]),
        (["dense", "tutel"], ["tutel", "dense", "dynamic+loop"], ["dense", "tutel"]),
        (["static", "tutel", "dense"], ["static", "tutel", "dense", "dynamic+loop"], ["static", "tutel", "dense"]),
        (["static", "static"], ["static", "dynamic+loop"], ["static"]),
    ],
)
def test_contenders_are_the_baselines_and_what_is_held_against_them(
    against: list[str], contenders: list[str], told: list[str]
) -> None:
    """Where the dense twin is the only baseline, static gating is there too: outputs need somebody who computes the same."""
    study = optimization(TINY, DYNAMIC, LOOP, against=against)
    assert [variant.label for variant in study.variants] == contenders
    assert [variant.label for variant in study.speedup_baselines] == told


def test_optimizations_come_in_turn_or_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(variant: Variant, settings: Settings, recipe: Recipe) -> Variant:
        return replace(variant, store="lifo")

    monkeypatch.setitem(OPTIMIZATIONS, "buffering", Optimization("buffering", "Fewer experts on the device.", apply))
    names = ["dynamic-gating", "buffering"]
    for alone, last in ((False, "dynamic+loop+lifo"), (True, "static+lifo")):
        study = optimization(TINY, names, LOOP, alone=alone)
        assert [variant.label for variant in study.variants] == ["static", "dynamic+loop", last]


@pytest.mark.usefixtures("device")
def test_with_the_dense_twin_as_only_baseline_outputs_are_still_checked(micro: Micro, tmp_path: Path) -> None:
    found = run(micro("lm"), tmp_path / "run", against=["dense"])
    assert found.record.valid
    assert set(values(found, "output_tokens_compared", "variant", phase="score")) == {("dynamic+loop",)}
    speedups = values(found, "speedup_equal_batch", "variant", "category", phase="score")
    assert set(speedups) == {("static", "dense"), ("dynamic+loop", "dense")}
    assert set(values(found, "slowdown_vs_dense", "variant", phase="score")) == {("static",), ("dynamic+loop",)}


# What is measured


def test_outputs_are_checked_before_anything_is_timed() -> None:
    assert PASSES.index(check_outputs) < PASSES.index(measure_time)


@pytest.mark.parametrize("name", ["lm", "mt"])
def test_a_run_is_valid_and_complete(micro: Micro, tmp_path: Path, name: str) -> None:
    found = Run.open(run(micro(name), tmp_path / "run", "budget.memory=400KiB", sweep=True, timeline=True).path)
    assert found.record.valid
    assert found.record.command == "optimize"
    assert [variant["label"] for variant in found.record.variants] == ["static", "dynamic+loop"]
    phases = found.record.recipe.phases
    assert {(trace.header.phase, trace.header.variant) for trace in found.traces} == {
        (phase, variant) for phase in phases for variant in ("static", "dynamic+loop")
    }
    for metric in (
        "throughput",
        "region_time",
        "memory_total_peak",
        "expert_slots",
        "max_batch",
        "best_batch",
        "max_throughput",
    ):
        rows = found.metrics[found.metrics["metric"] == metric]
        assert set(zip(rows["phase"], rows["variant"], strict=True)) == {
            (phase, variant) for phase in phases for variant in ("static", "dynamic+loop")
        }, metric
    for metric in ("output_tokens_compared", "speedup_equal_batch", "speedup_max_throughput"):
        rows = found.metrics[found.metrics["metric"] == metric]
        assert {(phase, "dynamic+loop") for phase in phases} == set(zip(rows["phase"], rows["variant"], strict=True)), metric
    assert len(list((found.path / "timeline").iterdir())) == 2 * len(phases)


@pytest.mark.usefixtures("device")
def test_what_follows_from_the_router_alone_is_told_once_and_loads_of_every_contender(micro: Micro, tmp_path: Path) -> None:
    found = run(micro("lm"), tmp_path / "run", "load.phases=['score']", against=["static", "tutel", "dense"])
    routed = {"static", "tutel", "dynamic+loop"}
    for metric, variants in (
        ("active_experts", routed),
        ("dropped_fraction", routed),
        ("expert_slots", routed),
        ("capacity", {"static", "tutel"}),
        ("active_jaccard", {"static"}),
        ("unused_expert1_count", {"static"}),
        ("gate_entropy", {"static"}),
    ):
        assert {variant for (variant,) in values(found, metric, "variant", phase="score")} == variants, metric
    assert values(found, "dropped_fraction", phase="score", variant="dynamic+loop") == {(): 0.0}


@pytest.mark.usefixtures("device")
def test_without_a_sweep_nothing_is_said_of_other_batches(micro: Micro, tmp_path: Path) -> None:
    found = run(micro("lm"), tmp_path / "run")
    assert set(found.metrics["point"]) == {""}
    swept = {"max_batch", "best_batch", "fits", "memory_budget", "max_throughput", "speedup_max_throughput"}
    assert swept.isdisjoint(found.metrics["metric"])
    assert "speedup_equal_batch" in set(found.metrics["metric"])
    assert not (found.path / "timeline").exists()


def test_the_same_recipe_gives_static_gating_the_same_numbers(micro: Micro, tmp_path: Path) -> None:
    """Of dynamic gating they could differ: its automatic kernel is chosen by the clock."""
    recipe, tables = micro("lm"), []
    for name in ("one", "other"):
        ticks = itertools.count(step=1_000)
        metrics = run(recipe, tmp_path / name, BUDGET, sweep=True, clock=ticks.__next__).metrics
        tables.append(metrics[(metrics["variant"] == "static") & metrics["kind"].isin(["exact", "routed"])])
    assert len(tables[0]) > 100
    assert tables[0].equals(tables[1])


def test_exact_numbers_do_not_depend_on_the_memory_that_happens_to_be_free(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a budget a sweep is bounded by what the machine has."""
    tables = []
    for free_bytes in (100_000, 200_000):
        monkeypatch.setattr(sweep, "spare_memory", lambda recipe, neighbours, free=free_bytes: free)
        metrics = run(micro("lm"), tmp_path / str(free_bytes), "load.phases=['score']", sweep=True).metrics
        tables.append(metrics[metrics["kind"] == "exact"].reset_index(drop=True))
    assert len(tables[0]) > 10
    assert tables[0].equals(tables[1])


# Runs that come to no end


def without_numbers(model: Model) -> None:
    """Spoils the first router."""
    moe_layers(model)[0].router.weight[0, 0] = float("nan")


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("name", "where"), [("lm", "layer 1, score step 0"), ("mt", r"layer enc\.1, encode step 0")])
def test_weights_that_are_no_numbers_are_named_with_layer_and_step(micro: Micro, tmp_path: Path, name: str, where: str) -> None:
    checkpoint = with_weights(micro(name), tmp_path / "bad.safetensors", without_numbers)
    with pytest.raises(MoeprofError, match=f"{where}: the router's softmax is not finite"):
        run(micro(name), tmp_path / "run", checkpoint)
    left = Run.open(tmp_path / "run")
    assert not left.record.valid
    assert left.record.reasons[0].startswith("failed: layer ")
    assert "throughput" not in set(left.metrics["metric"])


@pytest.mark.parametrize("readings", [1, 200, 1000])
def test_an_interruption_leaves_a_readable_run_marked_invalid(micro: Micro, tmp_path: Path, readings: int) -> None:
    """Wherever it falls: here into the time pass of the first phase, its breakdown, and the sweep."""
    clock = itertools.count()

    def interrupted() -> int:
        if (reading := next(clock)) == readings:
            raise KeyboardInterrupt
        return reading

    with pytest.raises(KeyboardInterrupt):
        run(micro("lm"), tmp_path / "run", BUDGET, clock=interrupted, sweep=True)
    left = Run.open(tmp_path / "run")
    assert not left.record.valid
    assert left.record.reasons == ["interrupted"]
    assert values(left, "output_tokens_compared", phase="score", variant="dynamic+loop")
    assert len(left.metrics) > 50


def test_a_pass_that_is_interrupted_leaves_what_came_before(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    passes: Sequence[object] = (interrupt,)
    monkeypatch.setattr(optimize, "PASSES", passes)
    with pytest.raises(KeyboardInterrupt):
        run(micro("mt"), tmp_path / "run")
    left = Run.open(tmp_path / "run")
    assert left.record.reasons == ["interrupted"]
    assert left.trace("encode", "dynamic+loop") is not None
    assert left.trace("decode", "static") is None
