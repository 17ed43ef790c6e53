"""The pass `breakdown`: the batches of the pass `time` again, rounds under a region timer interleaved with unobserved ones."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moeprof.instrument.regions import RegionTimer, region_timer
from moeprof.instrument.timing import PreparedRound, interleaved
from moeprof.records.run.raw_tables import BREAKDOWN, OBSERVED, REGIONS, ROUNDS
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode

WARMUP = 1
"""The pass `time` has warmed up everything but the timers."""


def measure_breakdown(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records the time of every region and layer, and rounds with and without the timer."""
    chosen = first_of_each_domain(episodes)
    services.progress.stage(f"{phase}: breakdown", len(chosen) * (WARMUP + services.half_the_rounds))
    for episode in chosen:
        observe(services, phase, episode)
    return Findings()


def observe(services: Services, phase: str, episode: Episode) -> None:
    """Every variant on one batch, with its timer and without."""
    timers: dict[str, RegionTimer] = {}
    prepared: dict[tuple[str, str], PreparedRound] = {}
    for variant in services.runner.variants:
        label = variant.label
        timers[label] = region_timer(services.recipe.measure.device, services.clock)
        play = services.runner.prepare(variant, episode)
        prepared |= {(BREAKDOWN, label): play, (OBSERVED, label): play.under(timers[label].observing)}

    def between() -> None:
        for timer in timers.values():
            timer.settle()
        services.progress.advance()

    samples = interleaved(
        {f"{pass_name}/{label}": one for (pass_name, label), one in prepared.items()},
        rounds=services.half_the_rounds,
        warmup=WARMUP,
        clock=services.clock,
        between=between,
    )
    for pass_name in (BREAKDOWN, OBSERVED):
        mine = {label: samples[f"{pass_name}/{label}"] for label in timers}
        services.record(ROUNDS, round_rows(pass_name, phase, episode, mine))
    services.record(REGIONS, region_rows(phase, episode.domain, timers))


def region_rows(phase: str, domain: str, timers: Mapping[str, RegionTimer]) -> Iterator[dict[str, Any]]:
    """The rounds that the timers of all variants saw, warm-up left out."""
    for label, timer in timers.items():
        for index, times in enumerate(timer.rounds[WARMUP:]):
            for (region, layer), time_ns in times.items():
                cells = {"phase": phase, "variant": label, "domain": domain, "region": region, "layer": layer}
                yield {**cells, "round": index, "time_ns": time_ns}
