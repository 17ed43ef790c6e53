"""The pass `slots`, only with `--sweep-slots`: a buffered variant with every number of slots."""

from collections.abc import Sequence

from moeprof.analysis.model_size import local_experts, slots_to_try
from moeprof.instrument.counters import Counters, device_uuid
from moeprof.instrument.probe import observed_by
from moeprof.instrument.timing import interleaved
from moeprof.instrument.visits import ExpertLoadRecorder, loads_table
from moeprof.moe.buffers import buffered_stores, kept
from moeprof.parallel.collectives import gathered
from moeprof.records.metrics.point import format_point
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import ENERGY, ROUNDS, SLOTS, STALLS
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.traces.expert_loads import joined
from moeprof.studies.passes.breakdown import WARMUP
from moeprof.studies.passes.loads import buffered_in, stall_rows
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import first_of_each_domain
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode, num_tokens

OBSERVED_TOO = 2
"""Every round runs with and without the recorder of loads."""


def sweep_slots(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records hits and misses from a cold start, rounds, stalls and energy at every number of slots."""
    buffers = services.runner.buffers
    for variant in buffered_in(services, phase):
        assert buffers is not None
        sizes = slots_to_try(local_experts(services.recipe), variant.slots)
        services.progress.stage(f"{phase}: slots of {variant.label}", len(sizes))
        for slots in sizes:
            buffers.fit(variant, slots)  # empty; the placement of the experts stays as it is
            measure_at(services, phase, episodes, variant, format_point({"slots": slots}))
            services.progress.advance()
        buffers.fit(variant, variant.slots)
    return Findings()


def measure_at(services: Services, phase: str, episodes: Sequence[Episode], variant: Variant, point: str) -> None:
    """Records one point, with the slots that the variant has now."""
    chosen = first_of_each_domain(episodes)
    record_cold_loads(services, phase, episodes, variant, point)
    with Counters(device_uuid() if services.recipe.measure.device == "cuda" else "") as counters:
        counters.sample()
        for episode in chosen:
            record_rounds(services, phase, episode, variant, point)
        counters.sample()
        energy = counters.change("energy").value
    tokens = sum(map(num_tokens, chosen)) * (services.half_the_rounds + WARMUP) * OBSERVED_TOO
    cells = {"phase": phase, "variant": variant.label, "point": point, "tokens": tokens}
    services.record(ENERGY, [cells | {"energy_mj": float(energy)}] if isinstance(energy, int | float) and tokens else [])


def record_cold_loads(services: Services, phase: str, episodes: Sequence[Episode], variant: Variant, point: str) -> None:
    """Records the hits and misses over all episodes, from a cold start."""
    recorder, model = ExpertLoadRecorder(), services.runner.select(variant)
    for store in buffered_stores(model):
        store.reset()
    for episode in episodes:
        with kept(model):
            play = episode.ready(model)
        with observed_by(recorder):
            play()
    mine = loads_table(services.group.rank, phase, variant.label, point, recorder.visits)
    parts = gathered(services.group, packed(mine))
    if services.group.first:
        services.writer.add_loads(joined(map(unpacked, parts)))


def record_rounds(services: Services, phase: str, episode: Episode, variant: Variant, point: str) -> None:
    """Records rounds on one batch, interleaved with rounds in which loads are observed."""
    prepared, recorder = services.runner.prepare(variant, episode), ExpertLoadRecorder()
    samples = interleaved(
        {variant.label: prepared, "observed": prepared.under(recorder.observing)},
        rounds=services.half_the_rounds,
        warmup=WARMUP,
        clock=services.clock,
    )
    unobserved = {variant.label: samples[variant.label]}
    services.record(ROUNDS, round_rows(SLOTS, phase, episode, unobserved, point))
    services.record(STALLS, stall_rows(SLOTS, phase, episode.domain, {variant.label: recorder}, point))
