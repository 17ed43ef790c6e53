"""The pass `sweep`: how throughput and memory grow with the batch, and each contender at the batch that suits it best."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from moeprof.analysis.timing.batch_search import Point, Search, search
from moeprof.analysis.timing.timing import Timing, speedup_rows, throughput_rows
from moeprof.instrument.allocator import give_freed_memory_back
from moeprof.instrument.machine import available_memory
from moeprof.instrument.memory import OverLimitError
from moeprof.instrument.timing import interleaved
from moeprof.moe.layer import use_variant
from moeprof.parallel.collectives import anyone, largest
from moeprof.parallel.group import Group
from moeprof.records.errors import MoeprofError
from moeprof.records.metrics.registry import Address, MetricRow
from moeprof.records.recipe.variant import Variant
from moeprof.records.units import format_bytes
from moeprof.studies.passes.memory import footprint
from moeprof.studies.passes.time import joint_timing
from moeprof.studies.session import Session, beginning
from moeprof.workloads.episodes import Episode, Round
from moeprof.workloads.registry import Workload

T = TypeVar("T")

WARMUP, ROUNDS = 1, 3
"""Of a point on the way; the best batches are then measured with the recipe's own rounds."""

UNTIMED_VARIANT = Variant(dispatch="dynamic")
"""How prompts and source sentences are read, untimed: a contender need not have the memory for that."""

SHARE_OF_RAM = 0.33
"""Of free memory, where no budget is set: the process was seen to hold 2.3 times its live bytes, freed ones being kept."""


def measure_sweep(workload: Workload, session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes the curves, `best_batch`, `max_batch`, and throughput and speed-ups at the best batches."""
    budget = budget_bytes(session)
    name = session.recipe.workload
    session.writer.add_metrics([MetricRow("memory_budget", budget, name, phase)])
    found: dict[Variant, Search] = {}
    mixture = partial(workload.mixture, phase, episodes)
    for variant in session.contenders:
        session.progress.stage(f"{phase}: batches for {variant.label}", 0)
        attempt = partial(tried, session, variant, mixture, budget, {})
        # Without a budget there is no question of what fits it, and a whole device is costly to fill.
        weigh = partial(attempt, weigh_only=True) if session.recipe.budget.memory else None
        found[variant] = search(attempt, weigh)
        session.writer.add_metrics(curve_rows(Address(workload=name, phase=phase, variant=variant.label), found[variant]))
    session.writer.record.notes += [f"{phase}: {remark}" for remark in remarks(session, found, budget, episodes)]
    measure_best(session, phase, found, mixture)


def budget_bytes(session: Session) -> int:
    """The recipe's budget of one rank, or what the device of the poorest has to give."""
    static = session.tracker(session.baseline).static_bytes
    share = SHARE_OF_RAM if session.recipe.measure.device == "cpu" else 1
    free = static + int(own_memory(session) * share)
    return session.recipe.budget.memory or -largest(session.group, [-free])[0]


def own_memory(session: Session) -> int:
    """Free bytes of the device, of which ranks on one CPU have their shares."""
    device = session.recipe.measure.device
    return available_memory(device) // (session.group.neighbours if device == "cpu" else 1)


def tried(
    session: Session,
    variant: Variant,
    mixture: Callable[[int], Episode],
    budget: int,
    needs: dict[int, int],
    batch: int,
    *,
    weigh_only: bool = False,
) -> Point:
    """One batch: its memory first, and its throughput where that fits; over ranks, where it fits on every one of them.

    `needs` keeps the dynamic bytes of the batches that were tried.
    """
    give_back(session.recipe.measure.device)
    if beyond_ranks(session, needs, batch):
        return Point(batch, why="over the memory of the ranks")
    episode = beginning(mixture(batch))
    # A rank that stopped in the middle would leave the others waiting for its rows: then all go on to the end.
    tracker = session.tracker(variant, budget if session.group.alone else None)
    session.progress.advance()

    def attempt() -> Point:
        needed = footprint(tracker, partial(prepared, session, variant, episode))
        (total,) = largest(session.group, [max(needed.total, needed.static + needed.by_category.get("allocator", 0))])
        needs[batch] = total - needed.static
        if total > budget:
            return Point(batch, None, total, "over the budget")
        if weigh_only:
            return Point(batch, None, total, weighed=True)
        rounds = timed(session, {variant: episode}, WARMUP, ROUNDS)[variant.label]
        return Point(batch, rounds.throughput, total)

    try:
        return unless_out_of_memory(attempt, session.group) or Point(batch, why="out of memory")
    except OverLimitError:
        return Point(batch, why="over the budget")


def beyond_ranks(session: Session, needs: dict[int, int], batch: int) -> bool:
    """Whether some rank may not have the memory to try a batch; static gating's grows with its square, the others' slower."""
    smaller = max((known for known in needs if known < batch), default=0)
    if session.group.alone or not smaller:
        return False
    return anyone(session.group, needs[smaller] * (batch / smaller) ** 2 > own_memory(session))


def unless_out_of_memory(work: Callable[[], T], group: Group) -> T | None:
    """What `work` gives; None where there was no memory left for it. MoeprofError where other ranks now wait for this one."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if not group.alone:
            raise MoeprofError("out of memory", "Use --no-sweep, or a smaller [budget] memory.") from error
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory left; torch has no class of its own for that on a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "allocate memory" in str(error)
    )


def give_back(device: str) -> None:
    """What the last attempt freed, so that the next one of another size finds it."""
    if device == "cuda":
        torch.cuda.empty_cache()
    else:
        give_freed_memory_back()


def prepared(session: Session, variant: Variant, episode: Episode) -> Round:
    """The round of one contender, its beginning read frugally."""
    model = session.contenders[variant]
    use_variant(model, UNTIMED_VARIANT if variant.dispatch_entry.padded else variant)
    play = episode.ready(model)
    use_variant(model, variant)
    return play


def timed(session: Session, episodes: dict[Variant, Episode], warmup: int, rounds: int) -> dict[str, Timing]:
    """Contenders in turns, each on an episode of its own, by label."""
    plays = {variant.label: prepared(session, variant, episode) for variant, episode in episodes.items()}
    samples = interleaved(plays, rounds=rounds, warmup=warmup, clock=session.clock, before=session.select_and_sync)
    return {
        variant.label: joint_timing(session.group, variant.label, episode, samples[variant.label])
        for variant, episode in episodes.items()
    }


def measure_best(session: Session, phase: str, found: dict[Variant, Search], mixture: Callable[[int], Episode]) -> None:
    """Every contender at its own best batch, in turns: a point that was lucky on the way is not believed."""
    measure, address = session.recipe.measure, Address(workload=session.recipe.workload, phase=phase)
    best = {variant: one.best.batch for variant, one in found.items() if one.best is not None}
    if not best:
        return
    session.progress.stage(f"{phase}: best batches", 1)
    timings = unless_out_of_memory(
        lambda: timed(session, {variant: beginning(mixture(batch)) for variant, batch in best.items()}, WARMUP, measure.rounds),
        session.group,
    )
    session.progress.advance()
    if timings is None:
        session.writer.record.notes.append(f"{phase}: out of memory with all best batches side by side, no speed-up at them")
        return
    for label, timing in timings.items():
        for row, values in throughput_rows("max_throughput", timing, address | Address(variant=label)):
            session.writer.add_metrics([row])
            session.writer.add_samples(row, values)
    rows = speedup_rows("speedup_max_throughput", address, timings, session.against, session.untold(phase))
    session.writer.add_metrics(rows)


def curve_rows(address: Address, found: Search) -> Iterator[MetricRow]:
    """Throughput and memory by batch, and what the search found."""
    for point in found.points:
        at = address | Address(point=f"batch={point.batch}")
        yield MetricRow("fits", point.fits, **at)
        if point.throughput is not None:
            yield MetricRow("throughput", point.throughput, **at)
        if point.memory_bytes is not None:
            yield MetricRow("memory_total_peak", point.memory_bytes, **at)
    yield MetricRow("max_batch", found.max_batch, **address)
    if found.best is not None:
        yield MetricRow("best_batch", found.best.batch, **address)


def remarks(session: Session, found: dict[Variant, Search], budget: int, episodes: Sequence[Episode]) -> Iterator[str]:
    """What a reader of the curves should know."""
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
