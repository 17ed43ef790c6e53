"""Speed-ups at equal batches, on a clock that knows what every dispatch costs."""

from itertools import count
from pathlib import Path

import pytest
import torch

from moeprof.records.recipe.variant import DENSE, STATIC
from moeprof.records.run.raw_tables import DECODE_TIMES, ROUNDS
from moeprof.records.run.run import Run
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


@pytest.mark.usefixtures("device")
def test_the_latencies_of_decoding_are_those_of_its_prompts_sources_and_steps(
    micro: Micro, tmp_path: Path, clock: DispatchClock
) -> None:
    """The prompts have 2 x 5 rows in one MoE layer, the sources 3 x 10 in one of the encoder, and the decoder has another."""
    lm = studied(micro("lm"), tmp_path / "lm", "load.phases=['decode']", passes=[measure_time], clock=clock)
    mt = studied(micro("mt"), tmp_path / "mt", "load.phases=['decode']", "data.fill=true", passes=[measure_time], clock=clock)
    prompt, source, step_2, step_3 = (COSTS["static"](rows) for rows in (10, 30, 2, 3))
    assert latency(lm, "time_to_first_token") == prompt
    assert latency(mt, "time_to_first_token") == source + step_3
    for run, step in ((lm, step_2), (mt, step_3)):
        for metric in ("time_per_output_token", "decode_step_p50", "decode_step_p95", "decode_step_p99"):
            assert latency(run, metric) == step


def latency(run: Run, metric: str) -> float:
    """Of static gating, over all domains."""
    return values(run, metric, "variant", phase="decode")["static",]


@pytest.mark.usefixtures("device")
def test_the_steps_of_a_round_add_up_to_it(micro: Micro, tmp_path: Path) -> None:
    """On a clock that advances at each reading: a round is read before and after its marks, which are one more than its steps."""
    run = studied(micro("lm"), tmp_path / "run", "load.phases=['decode']", passes=[measure_time], clock=count().__next__)
    steps = run.raw(DECODE_TIMES).to_pandas().query("part == 'decode'")
    assert len(steps) == 2 * 3 * 5 * 3  # variants, domains, rounds, steps
    if run.record.ran.measure.device == "cpu":
        assert steps["time_ns"].eq(1).all()
        assert run.raw(ROUNDS).to_pandas()["time_ns"].eq(3 + 2).all()
