"""The pass `slots`, only with `--sweep-slots`: how misses, memory and speed of a buffered variant change with its slots."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from moeprof.analysis.caching.residency import residency_rows
from moeprof.analysis.model_size import local_experts, slots_to_try
from moeprof.analysis.timing.stalls import Stalls, stall_rows
from moeprof.analysis.timing.timing import Timing, summed
from moeprof.instrument.counters import Counters, device_uuid
from moeprof.instrument.probe import observed_by
from moeprof.instrument.timing import interleaved
from moeprof.instrument.visits import ExpertLoadRecorder, loads_table
from moeprof.models.buffers import buffered_stores, kept
from moeprof.models.build import Model
from moeprof.parallel.collectives import barrier, gathered
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.variant import Variant
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.traces.expert_loads import joined
from moeprof.studies.passes.breakdown import WARMUP, rounds
from moeprof.studies.passes.loads import buffered_in, stalls_of
from moeprof.studies.passes.time import joint_timing
from moeprof.studies.session import Session, first_of_each_domain
from moeprof.workloads.episodes import Episode, num_tokens

if TYPE_CHECKING:
    from moeprof.analysis.timing.breakdown import Samples

OBSERVED = "observed"
PLAYS = 2
"""Of every round: with and without a look at the loads."""


def sweep_slots(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes, at every number of slots: misses from a cold start, bytes, stalls, throughput, energy where it is told."""
    for variant in buffered_in(session, phase):
        sizes = slots_to_try(local_experts(session.recipe), variant.slots)
        session.progress.stage(f"{phase}: slots of {variant.label}", len(sizes))
        for slots in sizes:
            fitted(session, variant, slots)
            measure_at(session, phase, episodes, variant, slots)
            session.progress.advance()
        fitted(session, variant, variant.slots)


def fitted(session: Session, variant: Variant, slots: int) -> None:
    """The variant with so many slots, empty; where its experts lie stays as it is."""
    assert session.buffers is not None
    session.buffers.fit(variant, slots)


def measure_at(session: Session, phase: str, episodes: Sequence[Episode], variant: Variant, slots: int) -> None:
    """One point, with the slots that the variant has now."""
    chosen = first_of_each_domain(episodes)
    at = MetricRow("", 0, session.recipe.workload, phase, variant=variant.label, point=format_point({"slots": slots}))
    model = session.use(variant)
    session.writer.add_metrics(list(cold_rows(session, at, episodes, model)))
    with Counters(device_uuid() if session.recipe.measure.device == "cuda" else "") as counters:
        counters.sample()
        measured = [timed(session, at, episode, model) for episode in chosen]
        counters.sample()
        energy = counters.change("energy").value
    tokens = sum(map(num_tokens, chosen)) * (rounds(session) + WARMUP) * PLAYS
    write(session, at, [timing for timing, _ in measured], [stalls for _, stalls in measured])
    if isinstance(energy, int | float) and tokens:
        session.writer.add_metrics([replace(at, metric="energy", value=energy / tokens)])


def cold_rows(session: Session, at: MetricRow, episodes: Sequence[Episode], model: Model) -> Iterator[MetricRow]:
    """Hits and misses over all batches that contenders are judged on."""
    recorder = ExpertLoadRecorder()
    for store in buffered_stores(model):
        store.reset()
    for episode in episodes:
        with kept(model):
            play = episode.ready(model)
        with observed_by(recorder):
            play()
    mine = loads_table(session.group.rank, at.phase, at.variant, at.point, recorder.visits)
    found = joined(unpacked(payload) for payload in gathered(session.group, packed(mine)))
    rows = residency_rows(found, replace(at, forced=session.recipe.forced))
    return (row for row in rows if not row.domain)


def timed(session: Session, at: MetricRow, episode: Episode, model: Model) -> tuple[Timing, Stalls]:
    """Rounds on one batch, in turns with rounds in which loads are observed."""
    play, recorder = episode.ready(model), ExpertLoadRecorder()
    samples = interleaved(
        {at.variant: play, OBSERVED: recorder.observing(play)},
        rounds=rounds(session),
        warmup=WARMUP,
        clock=session.clock,
        before=lambda _: barrier(session.group),
    )
    return joint_timing(session.group, at.variant, episode, samples[at.variant]), stalls_of(session, episode, recorder)


def write(session: Session, at: MetricRow, timings: Sequence[Timing], stalls: Sequence[Stalls]) -> None:
    """Speed and stalls at the point, of all domains together."""
    whole = summed(timings)[0]
    rows: list[Samples] = [
        (replace(at, metric="throughput", value=whole.throughput), whole.throughputs),
        (replace(at, metric="step_latency", value=median(whole.latencies_ns)), whole.latencies_ns),
        *((replace(row, domain=""), values) for row, values in list(stall_rows(at, stalls)) if over_all(row, stalls)),
    ]
    for row, values in rows:
        session.writer.add_metrics([row])
        session.writer.add_samples(row, values)


def over_all(row: MetricRow, stalls: Sequence[Stalls]) -> bool:
    """Whether a row is that of all layers and domains; a single domain is all."""
    return not row.layer and (not row.domain or len(stalls) == 1)
