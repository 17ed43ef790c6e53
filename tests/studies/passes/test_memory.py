"""The pass `memory` writes what the tracker saw, once per contender and phase."""

import itertools
from pathlib import Path

import pytest
import torch

from moeprof.analysis.memory import peak_rows
from moeprof.records.errors import UsageError
from moeprof.records.metrics.registry import METRICS
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.run.run import MEMORY_SCHEMA, Run, RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.studies.passes.memory import Footprint, footprint, measure_memory
from moeprof.workloads.registry import make_workload
from tests.records.run.runs import value_of
from tests.studies.runs import services_of

SETS = ("load.decode_steps=3", "load.batch_size=4", "load.batches=1", "load.prompt_length=4")


def measured(recipe: Recipe, out: Path, variants: tuple[Variant, ...] = (STATIC, DENSE)) -> Run:
    """A run with nothing but the pass `memory`, under a clock that ticks once per look."""
    services = services_of(recipe, out, variants, itertools.count().__next__)
    with torch.inference_mode():
        for phase in recipe.phases:
            episodes = make_workload(recipe).episodes(phase)
            episodes[0].settle(services.runner.select(services.runner.baseline))
            measure_memory(services, phase, episodes)
    return services.writer.finish()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return measured(load_recipe("mt-tiny", SETS), tmp_path_factory.mktemp("runs") / "mt")


def parameter_bytes(recipe: Recipe, *, dense: bool) -> int:
    from moeprof.analysis.model_size import weight_bytes

    return weight_bytes(recipe.model, dense=dense)


@pytest.mark.parametrize("phase", ["encode", "decode"])
@pytest.mark.parametrize("variant", ["static", "dense"])
def test_the_total_is_the_parameters_and_the_dynamic_peak(run: Run, phase: str, variant: str) -> None:
    total, dynamic = (
        value_of(run, f"memory_{name}_peak", phase=phase, variant=variant) or 0.0 for name in ("total", "dynamic")
    )
    assert total - dynamic == parameter_bytes(run.record.recipe, dense=variant == "dense")
    assert dynamic > 0


@pytest.mark.parametrize("phase", ["encode", "decode"])
def test_the_ratio_to_the_dense_twin_is_that_of_the_total_peaks(run: Run, phase: str) -> None:
    static, dense = (value_of(run, "memory_total_peak", phase=phase, variant=variant) for variant in ("static", "dense"))
    assert static is not None
    assert dense is not None
    assert value_of(run, "memory_vs_dense", phase=phase, variant="static") == static / dense
    assert value_of(run, "memory_vs_dense", phase=phase, variant="dense") is None


@pytest.mark.parametrize("phase", ["encode", "decode"])
@pytest.mark.parametrize("variant", ["static", "dense"])
def test_categories_at_the_peak_add_up_to_it_and_the_highest_region_is_the_peak(run: Run, phase: str, variant: str) -> None:
    rows = run.metrics[(run.metrics["phase"] == phase) & (run.metrics["variant"] == variant)]
    at_peak = rows[rows["metric"] == "memory_at_peak"]["value"].sum()
    regions = rows[(rows["metric"] == "memory_peak") & (rows["region"] != "")]["value"].max()
    assert at_peak == value_of(run, "memory_total_peak", phase=phase, variant=variant)
    assert regions == value_of(run, "memory_dynamic_peak", phase=phase, variant=variant)


def test_only_decoding_has_a_cache_and_only_the_mixture_has_dispatch_buffers(run: Run) -> None:
    rows = run.metrics[run.metrics["metric"] == "memory_peak"]
    found = {(row.phase, row.variant, row.category) for row in rows.itertuples() if row.category}
    assert found == {
        ("encode", "static", "activations"),
        ("encode", "static", "dispatch_buffers"),
        ("encode", "dense", "activations"),
        ("decode", "static", "activations"),
        ("decode", "static", "dispatch_buffers"),
        ("decode", "static", "kv_cache"),
        ("decode", "dense", "activations"),
        ("decode", "dense", "kv_cache"),
    }


def test_the_cache_weighs_the_same_in_both_contenders(run: Run) -> None:
    static, dense = (
        value_of(run, "memory_peak", phase="decode", variant=variant, category="kv_cache") for variant in ("static", "dense")
    )
    assert static == dense


def test_the_course_has_every_phase_and_contender_and_reaches_the_peaks(run: Run) -> None:
    totals = run.memory.groupby(["phase", "variant", "time_ns"])["bytes"].sum().groupby(["phase", "variant"]).max()
    assert set(totals.index) == set(itertools.product(("encode", "decode"), ("static", "dense")))
    for phase, variant in totals.index:
        assert totals[phase, variant] == value_of(run, "memory_total_peak", phase=phase, variant=variant)


def test_static_memory_is_left_to_who_writes_it_for_the_whole_run(run: Run) -> None:
    """It follows from the run record alone, not from the phases."""
    assert set(run.metrics[run.metrics["metric"] == "memory_static"]["phase"]) == {""}


def test_the_rows_do_not_depend_on_the_run(run: Run, tmp_path: Path) -> None:
    again = measured(run.record.recipe, tmp_path / "again")
    assert (again.path / "metrics.csv").read_bytes() == (run.path / "metrics.csv").read_bytes()
    assert (again.path / "memory.parquet").read_bytes() == (run.path / "memory.parquet").read_bytes()


def test_forced_routing_and_a_missing_twin_show_in_the_rows(tmp_path: Path) -> None:
    recipe = load_recipe("lm-tiny", [*SETS, 'load.phases=["score"]', 'routing.source="uniform"'])
    metrics = measured(recipe, tmp_path / "run", (STATIC,)).metrics
    assert set(metrics[metrics["phase"] != ""]["kind"]) == {"forced"}
    assert "memory_vs_dense" not in set(metrics["metric"])


def test_every_row_is_a_declared_metric_in_bytes_or_a_ratio() -> None:
    found = Footprint(100, 50, {"weights": 100, "activations": 50}, {"experts": 50}, {"activations": 50})
    sizes = {(row["measure"], row["name"]): row["bytes"] for row in found.rows("score", "static")}
    rows = list(peak_rows("lm", "score", {"static": sizes, "dense": sizes}, forced=False))
    assert {row.metric for row in rows} <= set(METRICS)
    assert [row.value for row in rows if row.metric == "memory_vs_dense"] == [1.0]
    assert len({row.address for row in rows}) == len(rows)


def test_on_cuda_the_allocators_peak_stands_beside_above_what_was_there_before(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr("torch.cuda.memory_allocated", lambda: 1000)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda: 1700)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: calls.append("synchronize"))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda: calls.append("reset"))
    from moeprof.instrument.memory import MemoryTracker

    tracker = MemoryTracker(torch.nn.Linear(1, 1))
    tracker.device = "cuda"
    found = footprint(tracker, lambda: lambda: torch.zeros(1))
    assert found.by_category == {"allocator": 700}
    assert calls == ["synchronize", "reset", "synchronize"]


def test_a_run_without_the_pass_has_an_empty_course_and_a_damaged_one_says_so(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", RunRecord(command="characterize", recipe=load_recipe("lm-tiny")))
    run = writer.finish()
    assert list(run.memory.columns) == MEMORY_SCHEMA.names
    assert run.memory.empty
    (run.path / "memory.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UsageError, match=r"memory\.parquet is damaged"):
        Run.open(run.path).memory  # noqa: B018
