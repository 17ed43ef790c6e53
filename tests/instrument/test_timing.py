"""Interleaved rounds of several variants: a clock around each, warm-up left out, and nothing else going on."""

import gc
from collections.abc import Callable, Iterator
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.instrument.probe import Probe, active, observed_by
from moeprof.instrument.timing import PreparedRound, interleaved


@pytest.fixture(scope="module", autouse=True)
def collections() -> Iterator[list[str]]:
    """Collecting garbage takes half a second where a whole test session is alive; here it is only noted."""
    calls: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(gc, "collect", lambda: calls.append("collected"))
        yield calls


class FakeTime:
    """A clock that advances only by what rounds take; it keeps who ran."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.log = ""

    def clock(self) -> int:
        return self.now_ns

    def takes(self, name: str, *durations_ns: int) -> PreparedRound:
        """Rounds that take these times, one after another and again from the start."""
        rounds = iter(durations_ns * 1000)

        def run() -> None:
            self.log += name
            self.now_ns += next(rounds)

        return PreparedRound(run)

    def pause(self) -> None:
        self.log += " "
        self.now_ns += 1_000_000


def test_two_variants_run_a_b_b_a() -> None:
    time = FakeTime()
    variants = {"a": time.takes("a", 5), "b": time.takes("b", 7)}
    samples = interleaved(variants, rounds=4, warmup=0, clock=time.clock, between=time.pause)
    assert time.log == "ab ba ab ba "
    assert samples == {"a": [5] * 4, "b": [7] * 4}


@pytest.mark.parametrize(("warmup", "log"), [(1, "ba ab ba "), (2, "ab ba ab ba "), (3, "ba ab ba ab ba ")])
def test_warm_up_is_interleaved_too_and_left_out(warmup: int, log: str) -> None:
    time = FakeTime()
    variants = {"a": time.takes("a", *range(100)), "b": time.takes("b", *range(100, 200))}
    samples = interleaved(variants, rounds=2, warmup=warmup, clock=time.clock, between=time.pause)
    assert time.log == log
    assert samples == {"a": [warmup, warmup + 1], "b": [warmup + 100, warmup + 101]}


def test_three_variants_go_back_and_forth() -> None:
    time = FakeTime()
    variants = {name: time.takes(name, 1) for name in "abc"}
    interleaved(variants, rounds=3, warmup=0, clock=time.clock, between=time.pause)
    assert time.log == "abc cba abc "


def test_a_round_selects_its_own_variant_before_each_run_and_off_the_clock() -> None:
    time = FakeTime()

    def announced(name: str, duration_ns: int) -> PreparedRound:
        def select() -> None:
            time.log += f"[{name}]"
            time.now_ns += 500

        return time.takes(name, duration_ns)._replace(select=select)

    rounds = {"a": announced("a", 5), "b": announced("b", 7)}
    samples = interleaved(rounds, rounds=2, warmup=1, clock=time.clock, between=time.pause)
    assert time.log == "[b]b[a]a [a]a[b]b [b]b[a]a "
    assert samples == {"a": [5, 5], "b": [7, 7]}


def test_two_rounds_of_one_model_each_run_under_their_own_variant() -> None:
    """Nothing but the rounds themselves says which variant is selected."""
    model, ran = {"variant": "none"}, list[str]()

    def prepared(variant: str) -> PreparedRound:
        return PreparedRound(lambda: ran.append(f"{variant} as {model['variant']}"), partial(model.update, variant=variant))

    interleaved({"a": prepared("static"), "b": prepared("dynamic")}, rounds=3, warmup=1, clock=FakeTime().clock)
    assert ran == [f"{variant} as {variant}" for variant in ("dynamic", "static", "static", "dynamic") * 2]


def test_an_observed_round_selects_the_same_variant() -> None:
    log: list[str] = []

    def observing(play: Callable[[], object]) -> Callable[[], object]:
        return lambda: (log.append("begin"), play(), log.append("end"))

    plain = PreparedRound(partial(log.append, "play"), partial(log.append, "select"))
    interleaved({"observed": plain.under(observing)}, rounds=1, warmup=0, clock=FakeTime().clock)
    assert log == ["select", "begin", "play", "end"]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.integers(1, 6), st.integers(0, 4))
def test_every_round_of_every_variant_is_kept_and_the_time_between_rounds_is_not(
    durations: list[int], rounds: int, warmup: int
) -> None:
    time = FakeTime()
    variants = {str(number): time.takes("x", duration) for number, duration in enumerate(durations)}
    samples = interleaved(variants, rounds=rounds, warmup=warmup, clock=time.clock, between=time.pause)
    assert samples == {str(number): [duration] * rounds for number, duration in enumerate(durations)}
    assert time.now_ns == (rounds + warmup) * (sum(durations) + 1_000_000)


def test_a_steady_drift_hits_two_variants_alike() -> None:
    time = FakeTime()
    variants = {name: time.takes(name, 10) for name in "ab"}

    def slower() -> int:
        """A machine on which everything takes longer and longer."""
        return time.now_ns + time.now_ns**2 // 10

    samples = interleaved(variants, rounds=8, warmup=0, clock=slower)
    assert sum(samples["a"]) == sum(samples["b"])


def test_nothing_is_timed_while_a_probe_is_active() -> None:
    time = FakeTime()
    with observed_by(Probe()), pytest.raises(RuntimeError, match="cannot time while a probe is active"):
        interleaved({"a": time.takes("a", 1)}, rounds=1, warmup=0, clock=time.clock)
    assert time.log == ""


def test_no_probe_is_active_while_a_round_is_timed() -> None:
    seen: list[Probe | None] = []
    interleaved({"a": PreparedRound(lambda: seen.append(active()))}, rounds=2, warmup=1, clock=FakeTime().clock)
    assert seen == [None] * 3


def test_the_garbage_collector_rests_inside_and_works_again_afterwards() -> None:
    seen: list[bool] = []
    assert gc.isenabled()
    interleaved({"a": PreparedRound(lambda: seen.append(gc.isenabled()))}, rounds=2, warmup=1, clock=FakeTime().clock)
    assert seen == [False] * 3
    assert gc.isenabled()


def test_garbage_is_collected_once_before_the_first_round(collections: list[str]) -> None:
    collections.clear()
    log: list[int] = []
    interleaved({"a": PreparedRound(lambda: log.append(len(collections)))}, rounds=2, warmup=1, clock=FakeTime().clock)
    assert log == [1, 1, 1]
    assert len(collections) == 1


def test_the_garbage_collector_works_again_after_a_failure() -> None:
    def fail() -> None:
        raise ValueError("out of memory")

    with pytest.raises(ValueError, match="out of memory"):
        interleaved({"a": PreparedRound(fail)}, rounds=1, warmup=0, clock=FakeTime().clock)
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        interleaved({"a": PreparedRound(lambda: None)}, rounds=1, warmup=0, clock=FakeTime().clock)
        assert not gc.isenabled()
    finally:
        gc.enable()
