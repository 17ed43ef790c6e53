"""The pass `loads`: the batches of the pass `time` again, every use and load of an expert in buffered layers observed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from moeprof.analysis.timing.stalls import by_layer
from moeprof.instrument.timing import interleaved
from moeprof.instrument.visits import ExpertLoadRecorder
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import LOADS, ROUNDS, STALLS
from moeprof.studies.passes.breakdown import WARMUP
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode


def measure_loads(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records what loading experts took in every round, how long layers waited for it, and what could have hidden it."""
    buffered = buffered_in(services, phase)
    if not buffered:
        return Findings()
    chosen = first_of_each_domain(episodes)
    services.progress.stage(f"{phase}: loads", len(chosen) * (WARMUP + services.half_the_rounds))
    for episode in chosen:
        recorders = {variant.label: ExpertLoadRecorder() for variant in buffered}
        samples = interleaved(
            {
                variant.label: services.runner.prepare(variant, episode).under(recorders[variant.label].observing)
                for variant in buffered
            },
            rounds=services.half_the_rounds,
            warmup=WARMUP,
            clock=services.clock,
            between=services.progress.advance,
        )
        services.record(ROUNDS, round_rows(LOADS, phase, episode, samples))
        services.record(STALLS, stall_rows(LOADS, phase, episode.domain, recorders))
    return Findings()


def buffered_in(services: Services, phase: str) -> list[Variant]:
    """Variants that buffer a layer that tokens of the phase pass through."""
    layers = set(services.recipe.moe_layers(phase))
    return [variant for variant in services.runner.variants if layers & set(services.recipe.buffered_layers(variant))]


def stall_rows(
    pass_name: str, phase: str, domain: str, recorders: Mapping[str, ExpertLoadRecorder], point: str = ""
) -> Iterator[dict[str, Any]]:
    """What the recorders of some variants saw, by round and layer, warm-up left out."""
    for label, recorder in recorders.items():
        about = {"pass": pass_name, "phase": phase, "variant": label, "point": point, "domain": domain}
        for index, visits in enumerate(recorder.rounds[WARMUP:]):
            for layer, cost in by_layer((one.layer, one.visit) for one in visits).items():
                times = {"load_ns": cost.load_ns, "stall_ns": cost.stall_ns, "hideable_ns": cost.hideable_ns}
                yield {**about, **times, "round": index, "layer": layer, "bytes": cost.num_bytes}
