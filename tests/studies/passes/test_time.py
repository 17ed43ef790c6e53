"""Speed-ups at equal batches, on a clock that knows what every dispatch costs."""

from pathlib import Path

import pytest
import torch

from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.studies.passes.time import measure_time

from ..runs import DYNAMIC, TUTEL, DispatchClock, Micro, spoil, studied, values

COSTS = {"static": lambda rows: 1000 + rows * rows, "tutel": lambda rows: 800 + 4 * rows, "dynamic": lambda rows: 500 + rows}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> DispatchClock:
    return DispatchClock(monkeypatch, COSTS)


@pytest.mark.usefixtures("device")
def test_every_contender_is_timed_under_its_own_dispatch(micro: Micro, tmp_path: Path, clock: DispatchClock) -> None:
    """A score step has 2 x 12 rows, a decode step 2; the model has one MoE layer."""
    run = studied(micro("lm"), tmp_path / "run", passes=[measure_time], variants=(STATIC, TUTEL, DYNAMIC), clock=clock)
    assert run.record.valid
    latencies = values(run, "step_latency", "phase", "variant", domain="code")
    assert latencies == {
        ("score", "static"): 1000 + 24 * 24,
        ("score", "tutel"): 800 + 4 * 24,
        ("score", "dynamic+loop"): 500 + 24,
        ("decode", "static"): 1000 + 2 * 2,
        ("decode", "tutel"): 800 + 4 * 2,
        ("decode", "dynamic+loop"): 500 + 2,
    }
    throughputs = values(run, "throughput", "variant", phase="score", domain="code")
    assert throughputs["dynamic+loop",] == pytest.approx(24e9 / 524)


@pytest.mark.usefixtures("device")
def test_speed_ups_are_told_against_every_baseline_and_domain(micro: Micro, tmp_path: Path, clock: DispatchClock) -> None:
    run = studied(
        micro("lm"),
        tmp_path / "run",
        "load.phases=['score']",
        passes=[measure_time],
        variants=(STATIC, TUTEL, DYNAMIC),
        against=(STATIC, TUTEL),
        clock=clock,
    )
    found = values(run, "speedup_equal_batch", "variant", "category", "domain", phase="score")
    wanted = {
        ("tutel", "static"): 1576 / 896,
        ("static", "tutel"): 896 / 1576,
        ("dynamic+loop", "static"): 1576 / 524,
        ("dynamic+loop", "tutel"): 896 / 524,
    }
    domains = ("prose", "code", "records", "")
    assert found == {(*pair, domain): pytest.approx(ratio) for pair, ratio in wanted.items() for domain in domains}


@pytest.mark.usefixtures("device")
def test_enough_rounds_put_an_interval_beside_every_speed_up(micro: Micro, tmp_path: Path, clock: DispatchClock) -> None:
    run = studied(
        micro("lm"), tmp_path / "run", "load.phases=['score']", "measure.rounds=6", passes=[measure_time], clock=clock
    )
    for end in ("", "_low", "_high"):
        found = values(run, f"speedup_equal_batch{end}", "variant", "category", phase="score")
        assert found == {("dynamic+loop", "static"): pytest.approx(1576 / 524)}


@pytest.mark.usefixtures("device")
def test_the_dense_twin_is_a_baseline_but_has_no_speed_up(micro: Micro, tmp_path: Path) -> None:
    run = studied(
        micro("lm"),
        tmp_path / "run",
        "load.phases=['score']",
        passes=[measure_time],
        variants=(STATIC, DENSE, DYNAMIC),
        against=(DENSE,),
    )
    found = values(run, "speedup_equal_batch", "variant", "category", phase="score")
    assert set(found) == {("static", "dense"), ("dynamic+loop", "dense")}


@pytest.mark.usefixtures("device")
def test_no_speed_up_is_told_of_a_contender_that_computes_something_else(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(monkeypatch, "dynamic", lambda y_TD: y_TD + 0.01)
    variants = (STATIC, TUTEL, DYNAMIC)
    run = studied(micro("lm"), tmp_path / "run", "gating.capacity_fraction=1.0", passes=[measure_time], variants=variants)
    assert set(values(run, "speedup_equal_batch", "variant", "category", phase="score")) == {("tutel", "static")}
    assert ("dynamic+loop",) in values(run, "throughput", "variant", phase="score")  # timed all the same


@pytest.mark.usefixtures("device")
def test_what_is_wrong_in_one_phase_is_told_in_the_other(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of translating have 3 rows, the sources more."""
    spoil(monkeypatch, "dynamic", torch.neg, largest=3)
    run = studied(micro("mt"), tmp_path / "run", passes=[measure_time])
    assert [reason.partition(":")[0] for reason in run.record.reasons] == ["decode"]
    assert values(run, "speedup_equal_batch", "variant", phase="encode", category="static")
    assert not values(run, "speedup_equal_batch", "variant", phase="decode", category="static")
