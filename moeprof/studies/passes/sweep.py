"""The pass `sweep`: how throughput and memory grow with the batch, and every variant at its best batch."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from moeprof.analysis.model_size import HELD
from moeprof.analysis.timing.batch_search import Point, Search, search
from moeprof.analysis.timing.timing import Timing
from moeprof.huggingface.model import HuggingFaceModel
from moeprof.instrument.allocator import give_back
from moeprof.instrument.memory import OverLimitError
from moeprof.instrument.timing import PreparedRound, interleaved
from moeprof.moe.layer import use_variant
from moeprof.parallel.collectives import anyone, barrier, largest, total
from moeprof.parallel.group import Group
from moeprof.records.errors import MoeprofError
from moeprof.records.metrics.point import format_point
from moeprof.records.recipe.variant import OWN, Variant
from moeprof.records.run.raw_tables import BATCHES, BEST, ROUNDS, SWEEP
from moeprof.records.system.causes import out_of_memory
from moeprof.records.units import format_bytes
from moeprof.studies.feasibility import spare_memory
from moeprof.studies.passes.memory import footprint
from moeprof.studies.passes.rounds import round_rows
from moeprof.studies.selection import beginning
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode, Round, num_tokens
from moeprof.workloads.registry import Workload

T = TypeVar("T")

WARMUP, ROUNDS_OF_POINT = 1, 3
"""Rounds at a batch that is tried; the best batches are then measured with the recipe's own rounds."""

UNTIMED_VARIANT = Variant(dispatch="dynamic")
"""The variant under which prompts and source sentences are read, untimed: others might not have the memory for that."""

SHARE_OF_RAM = 0.33
"""Share of free memory used if no budget is set, below 1 / HELD."""


def measure_sweep(workload: Workload, services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records every batch that was tried, and rounds of all variants at their best batches."""
    budget = budget_bytes(services)
    found: dict[Variant, Search] = {}
    mixture = partial(workload.mixture, phase, episodes)
    for variant in services.runner.variants:
        services.progress.stage(f"{phase}: batches for {variant.label}", 0)
        attempt = partial(try_batch, services, phase, variant, mixture, budget, {}, {})
        # Without a budget it does not matter what fits, and filling a whole device takes long.
        weigh = partial(attempt, weigh_only=True) if services.recipe.budget.memory else None
        found[variant] = search(attempt, weigh, again=attempt)
        services.record(BATCHES, batch_rows(phase, variant.label, budget, found[variant]) if services.group.first else [])
    notes = [f"{phase}: {remark}" for remark in remarks(found, budget, episodes)]
    return Findings([*notes, *measure_best(services, phase, found, mixture)])


def batch_rows(phase: str, label: str, budget: int, found: Search) -> Iterator[dict[str, Any]]:
    """Rows of the raw table `batches`."""
    cells = {"phase": phase, "variant": label, "budget_bytes": budget}
    for point in found.points:
        yield cells | {"batch": point.batch, "memory_bytes": point.memory_bytes, "fits": point.fits, "reason": point.why}


def budget_bytes(services: Services) -> int:
    """The recipe's budget of one rank, or the free memory of the rank that has least."""
    static = services.runner.tracker(services.runner.baseline, services.clock).static_bytes
    share = SHARE_OF_RAM if services.recipe.measure.device == "cpu" else 1
    free = static + int(own_memory(services) * share)
    return services.recipe.budget.memory or -largest(services.group, [-free])[0]


def own_memory(services: Services) -> int:
    """Free bytes for tensors of this rank, by the estimate that the check before the run uses."""
    return max(spare_memory(services.recipe, services.group.neighbours), 0)


def try_batch(
    services: Services,
    phase: str,
    variant: Variant,
    mixture: Callable[[int], Episode],
    budget: int,
    needs: dict[int, int],
    rounds_ns: dict[int, list[int]],
    batch: int,
    *,
    weigh_only: bool = False,
) -> Point:
    """Measures one batch: its memory first, and its throughput if that fits, over ranks if it fits on every one of them.

    `needs` keeps the dynamic bytes of the batches that were tried, `rounds_ns` the times of their rounds.
    """
    give_back(services.recipe.measure.device)
    if beyond_memory(services, variant, needs, batch):
        return Point(batch, why="over the free memory")
    episode = beginning(mixture(batch))
    # A rank that stopped in the middle would leave the others waiting for its rows: then all go on to the end.
    tracker = services.runner.tracker(variant, services.clock, budget if services.group.alone else None)
    services.progress.advance()

    def attempt() -> Point:
        needed = footprint(tracker, partial(ready, services, variant, episode))
        (total,) = largest(services.group, [max(needed.total, needed.static + needed.by_category.get("allocator", 0))])
        needs[batch] = total - needed.static
        if total > budget:
            return Point(batch, None, total, "over the budget")
        if weigh_only:
            return Point(batch, None, total, weighed=True)
        return Point(batch, timed(services, phase, variant, episode, batch, rounds_ns), total)

    try:
        return unless_out_of_memory(attempt, services.group) or Point(batch, why="out of memory")
    except OverLimitError:
        return Point(batch, why="over the budget")


def beyond_memory(services: Services, variant: Variant, needs: dict[int, int], batch: int) -> bool:
    """Whether the memory may not suffice to try a batch, by what the next smaller one needed.

    Padded dispatch needs memory that grows with the square of the batch, others less. A container ends a process that takes too
    much RAM, and other ranks would wait for one that failed; a single process on a GPU can try.
    """
    smaller = max((known for known in needs if known < batch), default=0)
    on_cpu = services.recipe.measure.device == "cpu"
    if not smaller or (services.group.alone and not on_cpu):
        return False
    expected = needs[smaller] * (batch / smaller) ** (2 if variant.dispatch_entry.padded else 1)
    return anyone(services.group, expected * (HELD if on_cpu else 1) > own_memory(services))


def unless_out_of_memory(work: Callable[[], T], group: Group) -> T | None:
    """The result of `work`; None if the memory did not suffice. MoeprofError if other ranks now wait for this one."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if not group.alone:
            raise MoeprofError("out of memory", "Use --no-sweep, or a smaller [budget] memory.") from error
    return None


def ready(services: Services, variant: Variant, episode: Episode) -> Round:
    """The round of one variant; its untimed beginning (prompt, source) ran under a variant that needs little memory."""
    model = services.runner.models[variant]
    untimed = OWN if isinstance(model, HuggingFaceModel) else UNTIMED_VARIANT
    use_variant(model, untimed if variant.dispatch_entry.padded else variant)
    play = episode.ready(model)
    use_variant(model, variant)
    return play


def timed(
    services: Services, phase: str, variant: Variant, episode: Episode, batch: int, rounds_ns: dict[int, list[int]]
) -> float:
    """Records short rounds of one variant at one batch; tokens per second of the median of all its rounds, over ranks."""
    label = variant.label
    play = ready(services, variant, episode)
    rounds = {label: PreparedRound(play, partial(services.runner.begin, variant, play))}
    samples = interleaved(rounds, rounds=ROUNDS_OF_POINT, warmup=WARMUP, clock=services.clock)
    services.record(ROUNDS, round_rows(SWEEP, phase, episode, samples, format_point({"batch": batch})))
    tokens = total(services.group, [num_tokens(episode)])[0]
    known = rounds_ns.setdefault(batch, [])
    known += largest(services.group, samples[label])
    return Timing(label, "", known, len(episode.steps), tokens).throughput


def measure_best(
    services: Services, phase: str, found: dict[Variant, Search], mixture: Callable[[int], Episode]
) -> Iterator[str]:
    """Records rounds of every variant at its own best batch: the maximum of a search is biased, so it is measured again."""
    best = {variant: one.best.batch for variant, one in found.items() if one.best is not None}
    if not best:
        return
    services.progress.stage(f"{phase}: best batches", services.recipe.measure.rounds)
    episodes = {variant: beginning(mixture(batch)) for variant, batch in best.items()}
    samples = unless_out_of_memory(lambda: timed_in_turn(services, episodes), services.group)
    if samples is None:
        yield f"{phase}: out of memory while the best batches were timed again, no speed-up at them"
        return
    for variant, episode in episodes.items():
        point = format_point({"batch": best[variant]})
        mine = {variant.label: samples[variant.label]}
        services.record(ROUNDS, round_rows(BEST, phase, episode, mine, point))


def timed_in_turn(services: Services, episodes: Mapping[Variant, Episode]) -> dict[str, list[int]]:
    """Nanoseconds of interleaved rounds of all variants, each on an episode of its own, by label."""
    turn = Turn(services)
    return interleaved(
        {one.label: PreparedRound(turn.run, partial(turn.begin, one, episode)) for one, episode in episodes.items()},
        rounds=services.recipe.measure.rounds,
        warmup=0,
        clock=services.clock,
        between=services.progress.advance,
    )


class Turn:
    """The variant whose turn it is, and no other, has its batch in memory: the best batches need not fit side by side."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.play: Round | None = None
        self.variant: Variant | None = None

    def begin(self, variant: Variant, episode: Episode) -> None:
        """Frees another variant's batch, prepares this one, and plays it once, so that the timed round finds allocated memory."""
        if variant != self.variant:
            self.play = None
            give_back(self.services.recipe.measure.device)
            self.play, self.variant = ready(self.services, variant, episode), variant
            self.play()
        assert self.play is not None
        self.play.rewind()
        barrier(self.services.group)

    def run(self) -> None:
        """Plays the round that was begun."""
        assert self.play is not None
        self.play()


def remarks(found: dict[Variant, Search], budget: int, episodes: Sequence[Episode]) -> Iterator[str]:
    """Remarks for the reader of the curves."""
    for variant, one in found.items():
        if one.best is None:
            why = one.points[0].why
            yield f"{variant.label}: not even one sequence fits the memory budget of {format_bytes(budget)} ({why})"
        for point in one.points:
            if point.why == "out of memory":
                yield f"{variant.label}: out of memory at batch {point.batch}"
    available = sum(len(episode.batch.sequence_B) for episode in episodes)
    if any(one.max_batch > available for one in found.values()):
        yield f"the text has {available} sequences, larger batches repeat them"
