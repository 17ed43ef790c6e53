"""Sweeps where memory runs out: it is said, and the rest of the run stands."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moeprof.analysis.timing.batch_search import Point, Search
from moeprof.instrument.clock import wall_clock
from moeprof.instrument.memory import Allocations, MemoryTracker
from moeprof.moe.dispatch import FUNCTIONS, Dispatched, dispatch_function
from moeprof.moe.exchange import LOCAL, Exchange
from moeprof.moe.routing import Routing
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC
from moeprof.records.run.run import Run
from moeprof.studies.passes.sweep import measure_best
from moeprof.studies.progress import Silent
from moeprof.workloads.registry import make_workload

from ..runs import DYNAMIC, Micro, services_of, values
from .sweeps import BUDGET, SCORE, curve, only, swept, weigh


def test_where_not_even_one_sequence_fits_it_is_said_and_the_rest_of_the_run_stands(micro: Micro, tmp_path: Path) -> None:
    run = swept(micro("mt"), tmp_path / "run", "budget.memory=2KiB")
    assert run.record.valid
    for phase in ("encode", "decode"):
        for variant in (STATIC, DYNAMIC):
            assert curve(run, "fits", phase, variant) == {1: 0}
            assert only(run, "max_batch", phase, variant) == 0
            remark = f"{phase}: {variant.label}: not even one sequence fits the memory budget of 2 KiB (over the budget)"
            assert remark in run.record.notes
            assert only(run, "active_experts" if variant == STATIC else "output_tokens_compared", phase, variant) > 0
    assert {"best_batch", "max_throughput", "speedup_max_throughput"}.isdisjoint(run.metrics["metric"])


def test_the_others_are_still_compared_where_one_contender_does_not_fit(micro: Micro, tmp_path: Path) -> None:
    """64 experts have 12 slots each for one sequence of 12 tokens: static gating needs the most."""
    sets = (SCORE, "model.experts=64", "gating.capacity_fraction=1.0")
    static, dynamic = (
        weigh(micro("lm"), "score", variant, tmp_path / variant.label, *sets)(1) for variant in (STATIC, DYNAMIC)
    )
    assert dynamic < static
    run = swept(micro("lm"), tmp_path / "run", *sets, f"budget.memory={static - 1}")
    assert run.record.valid
    assert only(run, "max_batch", variant=STATIC) == 0
    assert only(run, "max_batch", variant=DYNAMIC) >= 1
    assert {variant for (variant,) in values(run, "max_throughput", "variant", phase="score")} == {"dynamic+loop"}
    assert not values(run, "speedup_max_throughput", "variant", "category", phase="score")


def failing_from(monkeypatch: pytest.MonkeyPatch, name: str, rows: int, error: BaseException) -> None:
    """Dispatching so many rows or more raises."""
    usual = dispatch_function(name)

    def dispatch(x_TD: Tensor, routing: Routing, capacity_fraction: float, exchange: Exchange = LOCAL) -> Dispatched:
        if len(x_TD) >= rows:
            raise error
        return usual(x_TD, routing, capacity_fraction, exchange)

    monkeypatch.setitem(FUNCTIONS, name, dispatch)


def torchs_own() -> RuntimeError:
    """What torch raises on a CPU without the memory."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize("error", [torchs_own(), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_runs_out_in_the_middle_is_a_point_and_a_remark(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    failing_from(monkeypatch, "dynamic", 12 * 7, error)
    run = swept(micro("lm"), tmp_path / "run", SCORE, BUDGET)
    assert run.record.valid
    assert only(run, "max_batch", variant=DYNAMIC) == 6
    assert curve(run, "fits", "score", DYNAMIC) | {3: 1, 5: 1} == {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 1, 7: 0, 8: 0}
    assert [note for note in run.record.notes if "out of memory" in note] == [
        "score: dynamic+loop: out of memory at batch 7",
        "score: dynamic+loop: out of memory at batch 8",
    ]
    assert ("dynamic+loop", "static") in values(run, "speedup_max_throughput", "variant", "category", phase="score")


def test_memory_that_runs_out_at_the_best_batches_costs_their_speed_up_and_nothing_else(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watch(Silent):
        def stage(self, title: str, total: int) -> None:
            if title == "score: best batches":
                failing_from(monkeypatch, "dynamic", 1, MemoryError())

    run = swept(micro("lm"), tmp_path / "run", SCORE, BUDGET, progress=Watch())
    assert run.record.valid
    assert only(run, "best_batch", variant=DYNAMIC) > 0
    assert not values(run, "speedup_max_throughput", "variant", "category", phase="score")
    assert "score: out of memory while the best batches were timed again, no speed-up at them" in run.record.notes


class PeakClock:
    """Reads of a tracker how much was live at most between two readings: in each timed round."""

    def __init__(self, tracker: MemoryTracker) -> None:
        self.tracker, self.peaks, self.readings = tracker, list[int](), 0

    def __call__(self) -> int:
        if self.readings % 2:
            self.tracker.bytes.leave()
            self.peaks.append(self.tracker.static_bytes + self.tracker.bytes.peak.total)
        self.tracker.bytes.restart()
        self.tracker.bytes.touched = True
        self.readings += 1
        return self.readings


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize(("name", "phase"), [("lm", "score"), ("lm", "decode"), ("mt", "encode"), ("mt", "decode")])
def test_best_batches_are_in_memory_one_at_a_time_in_interleaved_rounds(
    micro: Micro, tmp_path: Path, name: str, phase: str
) -> None:
    """In every round as much is live as its variant needs alone: caches of the other's batch are gone, the weights are shared."""
    path, best = micro(name), {STATIC: 5, DYNAMIC: 9}
    static, dynamic = (weigh(path, phase, one, tmp_path / one.label)(batch) for one, batch in best.items())
    services = services_of(load_recipe(str(path)), tmp_path / "run", (STATIC, DYNAMIC))
    tracker = services.runner.tracker(STATIC, wall_clock)
    workload = make_workload(services.recipe)
    found = {variant: Search((Point(batch, 1.0),), "memory") for variant, batch in best.items()}
    with torch.inference_mode():
        episodes = workload.episodes(phase)
        for episode in episodes:
            episode.settle(services.runner.select(STATIC))
        mixtures = {batch: workload.mixture(phase, episodes, batch) for batch in best.values()}
        clock = PeakClock(tracker)
        with Allocations(tracker.saw):
            assert not list(measure_best(replace(services, clock=clock), phase, found, mixtures.__getitem__))
    assert clock.peaks == [static, dynamic, dynamic, static, static, dynamic, dynamic, static, static, dynamic]
    assert tracker.bytes.total == 0


def test_another_error_is_not_taken_for_want_of_memory(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_from(monkeypatch, "dynamic", 12 * 7, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        swept(micro("lm"), tmp_path / "run", SCORE, BUDGET)
    left = Run.open(tmp_path / "run")
    assert left.record.reasons == ["failed: shapes do not match"]
    assert curve(left, "fits", "score", STATIC)  # what was found before is kept
