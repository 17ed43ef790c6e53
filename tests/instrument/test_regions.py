"""Region times add up to the round, exactly; regions never overlap; nothing waits for the device inside a round."""

import time
from statistics import median

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from moeprof.instrument.probe import observed_by, region
from moeprof.instrument.regions import RegionTimer, cpu_stopwatch, cuda_stopwatch, region_timer
from moeprof.instrument.step import Step
from moeprof.models.initialise import initialise
from moeprof.moe.layer import MoELayer
from moeprof.records.recipe.files import load_recipe
from moeprof.records.regions import LAYER_REGIONS, REGIONS


class FakeClock:
    """Stands still until somebody works."""

    def __init__(self) -> None:
        self.now = 1000

    def __call__(self) -> int:
        return self.now


works = st.tuples(st.sampled_from(REGIONS[:-1]), st.sampled_from(["", "1", "3"]), st.integers(0, 99), st.integers(0, 99))


@given(rounds=st.lists(st.lists(works, max_size=12), min_size=1, max_size=3))
def test_time_is_booked_under_its_region_and_layer_and_what_is_left_under_other(
    rounds: list[list[tuple[str, str, int, int]]],
) -> None:
    clock = FakeClock()
    timer = RegionTimer(cpu_stopwatch(clock))
    expected = []
    for script in rounds:
        times = {("other", ""): 0}
        for name, layer, inside, outside in script:
            times[name, layer] = times.get((name, layer), 0) + inside
            times["other", ""] += outside
        expected.append(times)

        def play(script: list[tuple[str, str, int, int]] = script) -> None:
            for name, layer, inside, outside in script:
                with region(name, layer):
                    clock.now += inside
                clock.now += outside

        timer.observing(play)()
        timer.settle()
    assert timer.rounds == expected


def test_a_region_inside_another_is_refused() -> None:
    timer = RegionTimer(cpu_stopwatch(FakeClock()))
    with (
        observed_by(timer),
        region("experts", "3"),
        pytest.raises(RuntimeError, match=r"\('gate', '4'\) begins inside \('experts', '3'\)"),
        region("gate", "4"),
    ):
        pass


def test_settling_without_a_round_adds_none() -> None:
    timer = RegionTimer(cpu_stopwatch(FakeClock()))
    timer.settle()
    assert timer.rounds == []


def test_a_region_is_left_when_the_work_in_it_fails() -> None:
    timer = RegionTimer(cpu_stopwatch(FakeClock()))
    with observed_by(timer):
        with pytest.raises(ZeroDivisionError), region("gate", "1"):
            raise ZeroDivisionError
        with region("dispatch", "1"):
            pass
    assert timer.keys == [("gate", "1"), ("dispatch", "1")]


def test_the_components_of_a_real_moe_layer_sum_to_its_total_within_5_percent() -> None:
    """Statement 25 of the paper's facts, with a second clock around the layer."""
    recipe = load_recipe("lm-tiny")
    layer = MoELayer("3", recipe)
    initialise(layer, 0)
    x_TD = torch.randn(256, recipe.model.dim, generator=torch.Generator().manual_seed(0))
    timer = region_timer("cpu", time.perf_counter_ns)
    play = timer.observing(lambda: layer(x_TD, Step(None)))
    covered = []
    with torch.inference_mode():
        for _ in range(7):
            started = time.perf_counter_ns()
            play()
            whole_ns = time.perf_counter_ns() - started
            timer.settle()
            times = timer.rounds[-1]
            assert {name for name, _ in times} == {"gate", "dispatch", "experts", "combine", "other"}
            covered.append(sum(ns for (name, _), ns in times.items() if name in LAYER_REGIONS) / whole_ns)
    assert 0.95 <= median(covered) <= 1


class FakeEvent:
    """A CUDA event whose moments are fractions of a millisecond, as the driver gives them."""

    made = 0
    clock = 0.0

    def __init__(self, *, enable_timing: bool) -> None:
        assert enable_timing
        FakeEvent.made += 1

    def record(self) -> None:
        self.at = FakeEvent.clock

    def elapsed_time(self, other: "FakeEvent") -> float:
        return other.at - self.at


def test_cuda_events_are_read_only_after_the_round_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[int] = []
    FakeEvent.made, FakeEvent.clock = 0, 0.0
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(1))
    timer = RegionTimer(cuda_stopwatch())

    def play() -> None:
        for name in ("gate", "experts"):
            with region(name, "1"):
                FakeEvent.clock += 0.25
            FakeEvent.clock += 0.0005
        assert len(waits) == len(timer.rounds)

    for _ in range(3):
        timer.observing(play)()
        timer.settle()
    assert timer.rounds == [{("gate", "1"): 250_000, ("experts", "1"): 250_000, ("other", ""): 1_000}] * 3
    assert FakeEvent.made == 6
    assert len(waits) == 3


@pytest.mark.cuda
def test_on_cuda_the_regions_add_up_to_the_round() -> None:
    timer = region_timer("cuda", time.perf_counter_ns)
    matrix = torch.randn(2048, 2048, device="cuda")

    def play() -> None:
        with region("experts", "1"):
            for _ in range(20):
                matrix @ matrix

    for _ in range(3):
        timer.observing(play)()
        timer.settle()
    times = timer.rounds[-1]
    assert times["experts", "1"] > 0.8 * sum(times.values())
