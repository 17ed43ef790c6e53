"""The pass `loads`: the batches of the time pass once more, every expert that a buffered layer uses or loads observed."""

from collections.abc import Sequence

from moeprof.analysis.timing.stalls import Cost, Stalls, by_layer, over_ranks, stall_rows
from moeprof.instrument.timing import interleaved
from moeprof.instrument.visits import ExpertLoadRecorder
from moeprof.parallel.collectives import all_gather_json
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.recipe.variant import Variant
from moeprof.studies.passes.breakdown import WARMUP, rounds
from moeprof.studies.session import Session, first_of_each_domain
from moeprof.workloads.episodes import Episode


def measure_loads(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes what loading took per step, what the layers stood still for, and what could have been hidden."""
    buffered = buffered_in(session, phase)
    if not buffered:
        return
    chosen = first_of_each_domain(episodes)
    session.progress.stage(f"{phase}: loads", len(chosen) * (WARMUP + rounds(session)))
    found: dict[Variant, list[Stalls]] = {variant: [] for variant in buffered}
    for episode in chosen:
        for variant, stalls in observe(session, episode, buffered).items():
            found[variant].append(stalls)
    for variant, domains in found.items():
        at = MetricRow("", 0, session.recipe.workload, phase, variant=variant.label)
        for row, values in stall_rows(at, domains):
            session.writer.add_metrics([row])
            session.writer.add_samples(row, values)


def buffered_in(session: Session, phase: str) -> list[Variant]:
    """Contenders that buffer a layer that tokens of the phase pass."""
    layers = set(session.recipe.moe_layers(phase))
    return [variant for variant in session.contenders if layers & set(session.recipe.buffered_layers(variant))]


def observe(session: Session, episode: Episode, variants: Sequence[Variant]) -> dict[Variant, Stalls]:
    """Some variants on one batch, in turns."""
    recorders = {variant: ExpertLoadRecorder() for variant in variants}
    interleaved(
        {one.label: recorders[one].observing(episode.ready(session.use(one))) for one in variants},
        rounds=rounds(session),
        warmup=WARMUP,
        clock=session.clock,
        before=session.select_and_sync,
        between=session.progress.advance,
    )
    return {variant: stalls_of(session, episode, recorder) for variant, recorder in recorders.items()}


def stalls_of(session: Session, episode: Episode, recorder: ExpertLoadRecorder) -> Stalls:
    """What a recorder saw, on all ranks, warm-up left out."""
    mine = [by_layer((one.layer, one.visit) for one in visits) for visits in recorder.rounds[WARMUP:]]
    ranks = all_gather_json(session.group, mine)
    return over_ranks(
        episode.domain,
        len(episode.steps),
        [[{layer: Cost(*parts) for layer, parts in one.items()} for one in theirs] for theirs in ranks],
    )
