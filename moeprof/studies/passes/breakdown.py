"""The pass `breakdown`: the batches of the time pass once more, rounds under a region timer in turns with unobserved ones."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from moeprof.analysis.timing.breakdown import Breakdown, Samples, averaged, breakdown_rows, overhead_row
from moeprof.instrument.regions import RegionTimer, region_timer
from moeprof.instrument.timing import interleaved
from moeprof.parallel.collectives import all_gather_json, largest
from moeprof.parallel.group import Group
from moeprof.studies.session import Session, first_of_each_domain
from moeprof.workloads.episodes import Episode

INSTRUMENT = "breakdown"
"""Category of the pass's own `overhead`."""

WARMUP = 1
"""The time pass has warmed everything up but the timers."""

OBSERVED = " observed"
"""Behind a contender's label: the same contender under its timer."""


@dataclass(frozen=True)
class Observation:
    """What one contender's rounds on one domain gave."""

    ranks: list[Breakdown]
    observed_ns: list[int]
    """On the slowest rank, as without the timer."""
    unobserved_ns: list[int]

    @property
    def breakdown(self) -> Breakdown:
        """Over ranks."""
        return averaged(self.ranks)


def measure_breakdown(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes time and share of every region, contender and domain, and what looking on cost."""
    chosen = first_of_each_domain(episodes)
    session.progress.stage(f"{phase}: breakdown", len(chosen) * (WARMUP + rounds(session)))
    observations = [observation for episode in chosen for observation in observe(session, episode)]
    rows = [*region_rows(session, phase, observations), *overhead_rows(session.recipe.workload, phase, observations)]
    for row, values in rows:
        session.writer.add_metrics([row])
        session.writer.add_samples(row, values)


def region_rows(session: Session, phase: str, observations: Sequence[Observation]) -> Iterator[Samples]:
    """Over ranks, and where there are several, of each."""
    workload, group = session.recipe.workload, session.group
    yield from breakdown_rows(workload, phase, [observation.breakdown for observation in observations])
    for rank in range(0 if group.alone else group.size):
        for row, values in breakdown_rows(workload, phase, [observation.ranks[rank] for observation in observations]):
            yield replace(row, rank=str(rank)), values


def observe(session: Session, episode: Episode) -> list[Observation]:
    """Every contender on one batch, with its timer and without, all in turns."""
    timers = {variant.label: region_timer(session.recipe.measure.device, session.clock) for variant in session.contenders}
    contenders: dict[str, Callable[[], object]] = {}
    for variant in session.contenders:
        play = episode.ready(session.use(variant))
        contenders |= {variant.label: play, variant.label + OBSERVED: timers[variant.label].observing(play)}

    def between() -> None:
        for timer in timers.values():
            timer.settle()
        session.progress.advance()

    def before(name: str) -> None:
        session.select_and_sync(name.removesuffix(OBSERVED))

    samples = interleaved(
        contenders, rounds=rounds(session), warmup=WARMUP, clock=session.clock, before=before, between=between
    )
    return [
        Observation(
            of_every_rank(session.group, broken_down(timer, label, episode)),
            largest(session.group, samples[label + OBSERVED]),
            largest(session.group, samples[label]),
        )
        for label, timer in timers.items()
    ]


def rounds(session: Session) -> int:
    """Half of the time pass's: each one is played with and without the timer."""
    return (session.recipe.measure.rounds + 1) // 2


def broken_down(timer: RegionTimer, label: str, episode: Episode) -> Breakdown:
    """The rounds that a timer saw, warm-up left out."""
    return Breakdown(label, episode.domain, timer.rounds[WARMUP:], len(episode.steps))


def of_every_rank(group: Group, mine: Breakdown) -> list[Breakdown]:
    """The same contender on the other ranks, in their order."""
    rounds = [[[*key, ns] for key, ns in times.items()] for times in mine.rounds]
    return [
        replace(mine, rounds=[{(region, layer): ns for region, layer, ns in times} for times in theirs])
        for theirs in all_gather_json(group, rounds)
    ]


def overhead_rows(workload: str, phase: str, observations: Sequence[Observation]) -> Iterator[Samples]:
    """Per contender, all domains together."""
    for label in dict.fromkeys(observation.breakdown.variant for observation in observations):
        mine = [observation for observation in observations if observation.breakdown.variant == label]
        observed = [sum(rounds) for rounds in zip(*(one.observed_ns for one in mine), strict=True)]
        unobserved = [sum(rounds) for rounds in zip(*(one.unobserved_ns for one in mine), strict=True)]
        yield overhead_row(workload, phase, label, INSTRUMENT, observed, unobserved)
