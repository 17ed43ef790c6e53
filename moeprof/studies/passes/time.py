"""The pass `time`: one batch of every domain, rounds of all variants interleaved, and nothing but a clock."""

from collections.abc import Sequence

from moeprof.instrument.counters import Counters, device_uuid
from moeprof.instrument.timing import interleaved
from moeprof.records.run.raw_tables import ROUNDS, TIME
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode


def measure_time(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records the rounds of every variant and domain, and what the device's counters say at the end."""
    measure = services.recipe.measure
    chosen = first_of_each_domain(episodes)
    services.progress.stage(f"{phase}: time", len(chosen) * (measure.warmup + measure.rounds))
    with Counters(device_uuid() if measure.device == "cuda" else "") as counters:
        counters.sample()
        samples = [timed(services, episode) for episode in chosen]
        counters.sample()
        readings = counters.report()
    for episode, found in zip(chosen, samples, strict=True):
        services.record(ROUNDS, round_rows(TIME, phase, episode, found))
    return Findings(counters=readings)


def timed(services: Services, episode: Episode) -> dict[str, list[int]]:
    """Nanoseconds of every variant's rounds on one batch, by label."""
    measure, runner = services.recipe.measure, services.runner
    return interleaved(
        {variant.label: runner.prepare(variant, episode) for variant in runner.variants},
        rounds=measure.rounds,
        warmup=measure.warmup,
        clock=services.clock,
        between=services.progress.advance,
    )
