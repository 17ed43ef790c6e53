"""The pass `traffic`: the batches of the time pass once more, every collective observed on every rank."""

from collections.abc import Sequence
from dataclasses import dataclass

from moeprof.analysis.placement.rank_load import imbalance_rows
from moeprof.analysis.timing.breakdown import Samples
from moeprof.analysis.timing.communication import link_rows, share_rows, traffic_rows
from moeprof.analysis.timing.timing import Timing, summed
from moeprof.instrument.timing import interleaved
from moeprof.instrument.traffic import Collective, TrafficRecorder, traffic_table
from moeprof.parallel.collectives import gathered, largest
from moeprof.parallel.link import measured_links
from moeprof.records.link import Links
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.traces.traffic import Collectives, joined
from moeprof.studies.passes.breakdown import WARMUP, rounds
from moeprof.studies.session import Session, first_of_each_domain
from moeprof.workloads.episodes import Episode, num_tokens


@dataclass(frozen=True)
class Observed:
    """What one contender's rounds on one domain gave."""

    rounds: list[list[Collective]]
    timing: Timing
    """On the slowest rank."""


def measure_traffic(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes every collective of some rounds, what they cost beside what the link allows, and how uneven ranks are.

    Nothing of a rank that is alone.
    """
    if session.group.alone:
        return
    chosen = first_of_each_domain(episodes)
    session.progress.stage(f"{phase}: traffic", len(chosen) * (WARMUP + rounds(session)))
    observed = [observe(session, episode) for episode in chosen]
    links = links_of(session)
    for label in observed[0]:
        mine = [by_label[label] for by_label in observed]
        own = traffic_table(session.group.rank, phase, label, [one.rounds for one in mine])
        tables = [unpacked(payload) for payload in gathered(session.group, packed(own))]
        if session.group.first:
            traffic = joined(tables)
            session.writer.add_traffic(traffic)
            timings = [one.timing for one in mine]
            for collectives in traffic.collectives:
                write(session, rows_of(session, collectives, links, [*timings, *summed(timings)]))


def observe(session: Session, episode: Episode) -> dict[str, Observed]:
    """Every contender that has experts, by label, on one batch, in turns."""
    routed = [variant for variant in session.contenders if not variant.dense]
    recorders = {variant.label: TrafficRecorder() for variant in routed}
    samples = interleaved(
        {variant.label: recorders[variant.label].observing(episode.ready(session.use(variant))) for variant in routed},
        rounds=rounds(session),
        warmup=WARMUP,
        clock=session.clock,
        before=session.select_and_sync,
        between=session.progress.advance,
    )
    return {
        label: Observed(
            recorder.rounds[WARMUP:],
            Timing(label, episode.domain, largest(session.group, samples[label]), len(episode.steps), num_tokens(episode)),
        )
        for label, recorder in recorders.items()
    }


def links_of(session: Session) -> Links:
    """What lies between the ranks; the first phase of a run writes it down."""
    machine = session.writer.record.environment
    about = {"cpu": machine.cpu, "cores": str(machine.cores), "gpu": machine.gpu, "torch": machine.packages.get("torch", "")}
    device = session.recipe.measure.device
    links = measured_links(session.group, about | {"device": device}, device, session.clock)
    told = {row.address for row in session.writer.metrics.rows}
    session.writer.add_metrics(row for row in link_rows(session.recipe.workload, links) if row.address not in told)
    return links


def rows_of(session: Session, collectives: Collectives, links: Links, timings: Sequence[Timing]) -> list[Samples]:
    """What one contender's collectives cost, and how uneven its ranks' waiting and memory are."""
    rows = list(traffic_rows(session.recipe.workload, collectives, links, forced=session.recipe.forced))
    waits = [row for row, _ in rows if row.metric == "comm_wait_time" and row.layer and not row.region]
    whose = ("memory_total_peak", collectives.phase, collectives.variant, "")
    memory = [row for row in session.writer.metrics.rows if (row.metric, row.phase, row.variant, row.point) == whose]
    uneven = [*imbalance_rows("rank_wait_max_over_mean", waits), *imbalance_rows("rank_memory_max_over_mean", memory)]
    return [*rows, *share_rows(rows, timings), *((row, []) for row in uneven)]


def write(session: Session, rows: Sequence[Samples]) -> None:
    """Rows, and their raw values."""
    session.writer.add_metrics(row for row, _ in rows)
    for row, values in rows:
        session.writer.add_samples(row, values)
