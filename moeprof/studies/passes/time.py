"""The pass `time`: one batch of every domain, the contenders in turns, and nothing but a clock."""

from collections.abc import Sequence

from moeprof.analysis.timing.timing import Timing, noisy, slowdown_rows, speedup_rows, summed, timing_rows
from moeprof.instrument.counters import Counters, device_uuid
from moeprof.instrument.timing import interleaved
from moeprof.parallel.collectives import largest, total
from moeprof.parallel.group import Group
from moeprof.records.metrics.registry import Address
from moeprof.studies.session import Session, first_of_each_domain
from moeprof.workloads.episodes import Episode, num_tokens


def measure_time(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes latency and throughput of every contender and domain, the raw samples, and what is noisy."""
    measure = session.recipe.measure
    chosen = first_of_each_domain(episodes)
    session.progress.stage(f"{phase}: time", len(chosen) * (measure.warmup + measure.rounds))
    with Counters(device_uuid() if measure.device == "cuda" else "") as counters:
        counters.sample()
        timings = [timing for episode in chosen for timing in timed(session, episode)]
        counters.sample()
        session.writer.record.counters[phase] = counters.told()
    workload = session.recipe.workload
    for row, values in timing_rows(workload, phase, timings):
        session.writer.add_metrics([row])
        session.writer.add_samples(row, values)
    session.writer.add_metrics(slowdown_rows(workload, phase, timings))
    everything, untold = [*timings, *summed(timings)], session.untold(phase)
    for domain in dict.fromkeys(timing.domain for timing in everything):
        of = {timing.variant: timing for timing in everything if timing.domain == domain}
        address = Address(workload=workload, phase=phase, domain=domain)
        session.writer.add_metrics(speedup_rows("speedup_equal_batch", address, of, session.against, untold))
    session.writer.record.noisy += noisy(phase, timings)


def timed(session: Session, episode: Episode) -> list[Timing]:
    """Every contender's rounds on one batch of every rank."""
    measure = session.recipe.measure
    rounds = {variant.label: episode.ready(session.use(variant)) for variant in session.contenders}
    samples = interleaved(
        rounds,
        rounds=measure.rounds,
        warmup=measure.warmup,
        clock=session.clock,
        before=session.select_and_sync,
        between=session.progress.advance,
    )
    return [joint_timing(session.group, label, episode, rounds_ns) for label, rounds_ns in samples.items()]


def joint_timing(group: Group, label: str, episode: Episode, rounds_ns: Sequence[int]) -> Timing:
    """Over ranks: a round lasts as long as its slowest rank takes, and counts the tokens of all."""
    tokens = total(group, [num_tokens(episode)])[0]
    return Timing(label, episode.domain, largest(group, rounds_ns), len(episode.steps), tokens)
