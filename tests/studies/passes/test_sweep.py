"""Batches of growing size under a budget: what fits, and what is best."""

from pathlib import Path

import pytest
import torch

from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.raw_tables import BATCHES
from moeprof.studies.passes import sweep
from moeprof.studies.progress import Silent
from moeprof.studies.services import load_models

from ..runs import DYNAMIC, DispatchClock, Micro, spoil, values
from .sweeps import BUDGET, SCORE, curve, only, swept, weigh

COSTS = {"static": lambda rows: 1000 + rows * rows, "dynamic": lambda rows: 500 + rows}


@pytest.mark.parametrize(
    ("name", "phase", "budget_kib"),
    [
        ("lm", "score", 150),
        pytest.param("lm", "decode", 90, marks=pytest.mark.slow),
        pytest.param("mt", "encode", 400, marks=pytest.mark.slow),
        pytest.param("mt", "decode", 480, marks=pytest.mark.slow),
    ],
)
def test_the_largest_batch_is_that_of_trying_them_all_to_one_part_in_eight(
    micro: Micro, tmp_path: Path, name: str, phase: str, budget_kib: int
) -> None:
    budget = budget_kib * 1024
    run = swept(micro(name), tmp_path / "run", f"load.phases=['{phase}']", f"budget.memory={budget}")
    assert values(run, "memory_budget", phase=phase) == {(): budget}
    for variant in (STATIC, DYNAMIC):
        needed = weigh(micro(name), phase, variant, tmp_path / variant.label)
        found = int(only(run, "max_batch", phase, variant))
        largest = max(batch for batch in range(1, 2 * found + 2) if needed(batch) <= budget)
        assert found <= largest < found + max(1, found // 8)
        memory = curve(run, "memory_total_peak", phase, variant)
        assert memory[found] == needed(found) <= budget
        fits = curve(run, "fits", phase, variant)
        assert all(needed(batch) <= budget for batch, fit in fits.items() if fit)
        assert all(needed(batch) > budget for batch, fit in fits.items() if not fit)
        assert set(curve(run, "throughput", phase, variant)) <= {batch for batch, fit in fits.items() if fit}


def test_every_curve_begins_with_one_sequence_and_doubles(micro: Micro, tmp_path: Path) -> None:
    run = swept(micro("lm"), tmp_path / "run", SCORE, BUDGET, variants=(STATIC, DENSE, DYNAMIC))
    for variant in (STATIC, DENSE, DYNAMIC):
        fits = curve(run, "fits", "score", variant)
        first_failing = min(batch for batch, fit in fits.items() if not fit)
        assert {2**power for power in range(30) if 2**power < first_failing} <= set(fits)
        assert only(run, "max_batch", "score", variant) == max(batch for batch, fit in fits.items() if fit)


def test_best_batches_and_their_speed_up_are_those_of_the_costs(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Static: 1,000 + S^2 ns for S = 12 tokens a sequence, best at 36 tokens; dynamic: 500 + S ns, best where memory ends."""
    run = swept(micro("lm"), tmp_path / "run", SCORE, BUDGET, clock=DispatchClock(monkeypatch, COSTS))
    assert only(run, "best_batch", variant=STATIC) == 3
    best = only(run, "best_batch", variant=DYNAMIC)
    assert best == only(run, "max_batch", variant=DYNAMIC) > 8
    static, dynamic = 36 / (1000 + 36 * 36), 12 * best / (500 + 12 * best)
    assert only(run, "max_throughput", variant=STATIC) == pytest.approx(static * 1e9)
    assert only(run, "max_throughput", variant=DYNAMIC) == pytest.approx(dynamic * 1e9)
    assert values(run, "speedup_max_throughput", "variant", "category", phase="score") == {
        ("dynamic+loop", "static"): pytest.approx(dynamic / static)
    }
    throughputs = curve(run, "throughput", "score", DYNAMIC)
    assert throughputs == {batch: pytest.approx(12e9 * batch / (500 + 12 * batch)) for batch in throughputs}
    samples = run.samples.query("metric == 'max_throughput' and variant == 'static'")
    assert len(samples) == run.record.recipe.measure.rounds


def test_beyond_the_fastest_batches_only_memory_is_looked_at(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Static throughput falls behind 3 sequences; what fits does not depend on that."""
    run = swept(micro("lm"), tmp_path / "run", SCORE, "budget.memory=400KiB", clock=DispatchClock(monkeypatch, COSTS))
    assert set(curve(run, "throughput", "score", STATIC)) == {1, 2, 3, 4, 8}
    fits = curve(run, "fits", "score", STATIC)
    untimed = {batch for batch, fit in fits.items() if fit} - {1, 2, 3, 4, 8}
    assert untimed
    assert untimed <= set(curve(run, "memory_total_peak", "score", STATIC))
    assert only(run, "max_batch") == max(untimed)
    assert not fits[max(fits)]


def test_without_a_budget_a_share_of_the_free_memory_and_the_weights_are_it(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "spare_memory", lambda recipe, neighbours: 900_000)
    run = swept(micro("lm"), tmp_path / "run", SCORE, clock=DispatchClock(monkeypatch, COSTS))
    weights = sum(parameter.nbytes for parameter in load_models(run.record.recipe, (STATIC,), Silent())[STATIC].parameters())
    assert values(run, "memory_budget", phase="score") == {(): weights + 297_000}
    assert set(curve(run, "fits", "score", STATIC)) <= {1, 2, 3, 4, 8}  # nobody fills a device only to see what fits


def test_a_budget_above_the_free_memory_is_not_tried_out(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container would end the process: a batch is left out if 2.3 times its expected bytes are more than what is free."""
    free = 900_000
    monkeypatch.setattr(sweep, "spare_memory", lambda recipe, neighbours: free)
    run = swept(micro("lm"), tmp_path / "run", SCORE, "budget.memory=1GiB", clock=DispatchClock(monkeypatch, COSTS))
    weights = sum(parameter.nbytes for parameter in load_models(run.record.recipe, (STATIC,), Silent())[STATIC].parameters())
    needs = curve(run, "memory_total_peak", "score", STATIC)
    fits = curve(run, "fits", "score", STATIC)
    doubled = min(batch for batch, fit in fits.items() if not fit and batch & (batch - 1) == 0)
    assert 2.3 * (needs[doubled // 2] - weights) * 4 > free
    assert all(2.3 * (needs[batch] - weights) <= free for batch, fit in fits.items() if fit)
    assert doubled not in needs
    reasons = {row["reason"] for row in run.raw(BATCHES).to_pylist() if not row["fits"]}
    assert reasons == {"over the free memory"}


def test_a_text_that_must_be_repeated_is_remarked_upon(micro: Micro, tmp_path: Path) -> None:
    """The small recipe has 3 domains of 2 batches of 2 sequences."""
    remark = "score: the text has 12 sequences, larger batches repeat them"
    assert remark in swept(micro("lm"), tmp_path / "large", SCORE, "budget.memory=400KiB").record.notes
    small = swept(micro("lm"), tmp_path / "small", SCORE, "budget.memory=150KiB")
    assert only(small, "max_batch", variant=DYNAMIC) <= 12
    assert remark not in small.record.notes


def test_of_a_contender_that_computes_something_else_no_speed_up_is_told(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "dynamic", torch.neg)
    run = swept(micro("lm"), tmp_path / "run", SCORE, BUDGET)
    assert not run.record.valid
    assert only(run, "max_throughput", variant=DYNAMIC) > 0
    assert not values(run, "speedup_max_throughput", "variant", "category", phase="score")
