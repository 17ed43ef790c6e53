"""The pass `time`: one batch of every domain, rounds of all variants interleaved, and nothing but a clock.

In `decode` the clock is also read after every step, and the prompts (or sources) have rounds of their own.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moeprof.instrument.counters import Counters, device_uuid
from moeprof.instrument.regions import stopwatch
from moeprof.instrument.steps import StepTimer
from moeprof.instrument.timing import interleaved
from moeprof.records.run.raw_tables import DECODE_TIMES, ROUNDS, TIME
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import DecodeEpisode, Episode

StepTimes = Mapping[str, Sequence[Sequence[int]]]
"""Nanoseconds of the steps of every round, by the label of the variant."""

BEGINNING_WARMUP = 1
"""The rounds of decoding have read the same prompt before."""


def measure_time(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records the rounds of every variant and domain, and what the device's counters say at the end."""
    measure = services.recipe.measure
    chosen = first_of_each_domain(episodes)
    decoded = [episode for episode in chosen if isinstance(episode, DecodeEpisode)]
    num_beginnings = len(decoded) * (BEGINNING_WARMUP + measure.rounds)
    services.progress.stage(f"{phase}: time", len(chosen) * (measure.warmup + measure.rounds) + num_beginnings)
    with Counters(device_uuid() if measure.device == "cuda" else "") as counters:
        counters.sample()
        found = [timed(services, episode) for episode in chosen]
        counters.sample()
        readings = counters.report()
    for episode, (samples, _) in zip(chosen, found, strict=True):
        services.record(ROUNDS, round_rows(TIME, phase, episode, samples))
    if decoded:
        record_decoding(services, phase, decoded, [steps for _, steps in found])
    return Findings(counters=readings)


def record_decoding(services: Services, phase: str, episodes: Sequence[DecodeEpisode], steps: Sequence[StepTimes]) -> None:
    """Times what precedes the steps of each episode, and records it together with them."""
    rows: list[dict[str, Any]] = []
    for episode, its_steps in zip(episodes, steps, strict=True):
        rows += decode_rows(phase, episode.domain, episode.reads, timed_beginnings(services, episode))
        rows += decode_rows(phase, episode.domain, "decode", its_steps)
    services.record(DECODE_TIMES, rows)


def timed(services: Services, episode: Episode) -> tuple[dict[str, list[int]], StepTimes]:
    """Nanoseconds of every variant's rounds on one batch, by label, and of the steps of each if it is decoded."""
    measure, runner = services.recipe.measure, services.runner
    timers = {variant.label: StepTimer(stopwatch(measure.device, services.clock)) for variant in runner.variants}

    def between() -> None:
        for timer in timers.values():
            timer.settle()
        services.progress.advance()

    samples = interleaved(
        {variant.label: runner.prepare(variant, episode, timers[variant.label].mark) for variant in runner.variants},
        rounds=measure.rounds,
        warmup=measure.warmup,
        clock=services.clock,
        between=between,
    )
    return samples, {label: timer.rounds[measure.warmup :] for label, timer in timers.items()}


def timed_beginnings(services: Services, episode: DecodeEpisode) -> StepTimes:
    """Nanoseconds in which every variant reads the prompts or the sources of one batch, one step per round."""
    runner = services.runner
    samples = interleaved(
        {variant.label: runner.prepare_beginning(variant, episode) for variant in runner.variants},
        rounds=services.recipe.measure.rounds,
        warmup=BEGINNING_WARMUP,
        clock=services.clock,
        between=services.progress.advance,
    )
    return {label: [[time_ns] for time_ns in times_ns] for label, times_ns in samples.items()}


def decode_rows(phase: str, domain: str, part: str, samples: StepTimes) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `decode_times`."""
    for label, rounds in samples.items():
        for index, steps in enumerate(rounds):
            for step, time_ns in enumerate(steps):
                cells = {"phase": phase, "variant": label, "domain": domain, "part": part}
                yield {**cells, "round": index, "step": step, "time_ns": time_ns}
