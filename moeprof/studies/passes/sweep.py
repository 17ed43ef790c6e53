"""The pass `sweep`: how throughput and memory grow with the batch, and each contender at the batch that suits it best."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch

from moeprof.analysis.search import Point, Search, search
from moeprof.analysis.timing import Timing, speedup_rows, throughput_rows
from moeprof.instrument.allocator import give_freed_memory_back
from moeprof.instrument.machine import available_memory
from moeprof.instrument.memory import MemoryTracker, OverLimitError
from moeprof.instrument.timing import interleaved
from moeprof.moe.layer import use_variant
from moeprof.records.metrics import Address, MetricRow
from moeprof.records.units import format_bytes
from moeprof.records.variant import Variant
from moeprof.studies.passes.memory import footprint
from moeprof.studies.session import Session, beginning
from moeprof.workloads.episodes import Episode, Round, num_tokens
from moeprof.workloads.registry import Workload

T = TypeVar("T")

WARMUP, ROUNDS = 1, 3
"""Of a point on the way; the best batches are then measured with the recipe's own rounds."""

FRUGAL = Variant(dispatch="dynamic")
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
        attempt = partial(tried, session, variant, mixture, budget)
        # Without a budget there is no question of what fits it, and a whole device is costly to fill.
        weigh = partial(attempt, timing=False) if session.recipe.budget.memory else None
        found[variant] = search(attempt, weigh)
        session.writer.add_metrics(curve_rows(Address(workload=name, phase=phase, variant=variant.label), found[variant]))
    session.writer.record.notes += [f"{phase}: {remark}" for remark in remarks(session, found, budget, episodes)]
    measure_best(session, phase, found, mixture)


def budget_bytes(session: Session) -> int:
    """The recipe's budget, or what the device has to give."""
    device = session.recipe.measure.device
    static = MemoryTracker(session.contenders[session.baseline]).static_bytes
    free = static + int(available_memory(device) * (SHARE_OF_RAM if device == "cpu" else 1))
    return session.recipe.budget.memory or free


def tried(
    session: Session, variant: Variant, mixture: Callable[[int], Episode], budget: int, batch: int, *, timing: bool = True
) -> Point:
    """One batch: its memory first, and its throughput where that fits."""
    give_back(session.recipe.measure.device)
    episode = beginning(mixture(batch))
    tracker = MemoryTracker(session.contenders[variant], session.clock, budget)
    session.progress.advance()

    def attempt() -> Point:
        needed = footprint(tracker, partial(prepared, session, variant, episode))
        total = max(needed.total, needed.static + needed.by_category.get("allocator", 0))
        if total > budget:
            return Point(batch, None, total, "over the budget")
        if not timing:
            return Point(batch, None, total, weighed=True)
        rounds = timed(session, {variant: episode}, WARMUP, ROUNDS)[variant.label]
        return Point(batch, rounds.throughput, total)

    try:
        return unless_out_of_memory(attempt) or Point(batch, why="out of memory")
    except OverLimitError:
        return Point(batch, why="over the budget")


def unless_out_of_memory(work: Callable[[], T]) -> T | None:
    """What `work` gives; None where there was no memory left for it."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
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
    use_variant(model, FRUGAL)
    play = episode.ready(model)
    use_variant(model, variant)
    return play


def timed(session: Session, episodes: dict[Variant, Episode], warmup: int, rounds: int) -> dict[str, Timing]:
    """Contenders in turns, each on an episode of its own, by label."""
    plays = {variant.label: prepared(session, variant, episode) for variant, episode in episodes.items()}
    samples = interleaved(plays, rounds=rounds, warmup=warmup, clock=session.clock, before=session.use_label)
    return {
        variant.label: Timing(variant.label, "", samples[variant.label], len(episode.steps), num_tokens(episode))
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
        lambda: timed(session, {variant: beginning(mixture(batch)) for variant, batch in best.items()}, WARMUP, measure.rounds)
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
