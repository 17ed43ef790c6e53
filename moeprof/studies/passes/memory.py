"""The pass `memory`: one batch under every contender, every live tensor followed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial

import torch

from moeprof.instrument.memory import MemoryTracker
from moeprof.parallel.collectives import all_gather_json, gathered
from moeprof.parallel.group import Group
from moeprof.records.metrics.registry import MetricRow
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.units import format_bytes
from moeprof.studies.session import Session, beginning
from moeprof.workloads.episodes import Episode, Round


@dataclass(frozen=True)
class Footprint:
    """What one contender needs for a phase, bytes."""

    static: int
    dynamic: int
    at_peak: Mapping[str, int]
    """By category, weights included, when the total was highest."""
    by_region: Mapping[str, int]
    """Most dynamic bytes while in it."""
    by_category: Mapping[str, int]

    @property
    def total(self) -> int:
        """Parameters and the peak of the rest."""
        return self.static + self.dynamic


def measure_memory(session: Session, phase: str, episodes: Sequence[Episode]) -> None:
    """Writes peaks and course of the first batch (a few steps of it in `decode`); its tokens must be settled.

    Over ranks these are the worst rank's, and the peaks of each stand beside them.
    """
    session.progress.stage(f"{phase}: memory", len(session.contenders))
    footprints: dict[str, Footprint] = {}
    ranks: dict[str, list[Footprint]] = {}
    for variant in session.contenders:
        model = session.use(variant)
        tracker = session.tracker(variant)
        ranks[variant.label] = of_every_rank(session.group, footprint(tracker, partial(beginning(episodes[0]).ready, model)))
        footprints[variant.label] = max(ranks[variant.label], key=lambda found: found.total)
        tables = gathered(session.group, packed(tracker.table(phase, variant.label)))
        if session.group.first:
            session.writer.add_memory(unpacked(tables[ranks[variant.label].index(footprints[variant.label])]))
        session.progress.advance()
    forced, budget = session.recipe.forced, session.recipe.budget.memory
    session.writer.record.notes += [
        f"{phase}: one batch of {session.recipe.load.batch_size} under {variant} needs {format_bytes(found.total)}, "
        f"more than the budget of {format_bytes(budget)}"
        for variant, found in footprints.items()
        if budget is not None and found.total > budget
    ]
    session.writer.add_metrics(memory_rows(session.recipe.workload, phase, footprints, forced=forced))
    for rank in range(0 if session.group.alone else session.group.size):
        mine = {variant: found[rank] for variant, found in ranks.items()}
        rows = memory_rows(session.recipe.workload, phase, mine, forced=forced)
        session.writer.add_metrics(replace(row, rank=str(rank)) for row in rows)


def of_every_rank(group: Group, mine: Footprint) -> list[Footprint]:
    """What the same contender needed on all ranks, in their order."""
    return [Footprint(*found) for found in all_gather_json(group, astuple(mine))]


def footprint(tracker: MemoryTracker, ready: Callable[[], Round]) -> Footprint:
    """Plays an episode once; what makes it ready, untimed, counts only by what it leaves behind."""
    before = allocated(tracker.device)
    with tracker.observing():
        play = ready()
    tracker.begin()
    reset_peak(tracker.device)
    with tracker.observing():
        play()
    measured = {"allocator": peak_allocated() - before} if tracker.device == "cuda" else {}
    live = tracker.bytes
    by_category = {name: size for name, size in live.by_category.items() if size}
    return Footprint(tracker.static_bytes, live.peak.total, tracker.at_peak(), dict(live.by_region), by_category | measured)


def allocated(device: str) -> int:
    """Bytes that CUDA's allocator has handed out; 0 elsewhere."""
    return torch.cuda.memory_allocated() if device == "cuda" else 0


def reset_peak(device: str) -> None:
    """Lets the allocator's peak count from here."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peak_allocated() -> int:
    """Most bytes that CUDA's allocator had handed out at once."""
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


def memory_rows(workload: str, phase: str, footprints: Mapping[str, Footprint], *, forced: bool = False) -> Iterator[MetricRow]:
    """Peaks of every contender, in all, by region and by category, and the ratio to the dense twin."""
    for variant, found in footprints.items():
        whole = MetricRow("memory_total_peak", found.total, workload, phase, variant=variant, forced=forced)
        yield whole
        yield replace(whole, metric="memory_dynamic_peak", value=found.dynamic)
        for region, size_bytes in found.by_region.items():
            yield replace(whole, metric="memory_peak", value=size_bytes, region=region)
        for category, size_bytes in found.by_category.items():
            yield replace(whole, metric="memory_peak", value=size_bytes, category=category)
        for category, size_bytes in found.at_peak.items():
            yield replace(whole, metric="memory_at_peak", value=size_bytes, category=category)
        if variant != "dense" and "dense" in footprints:
            yield replace(whole, metric="memory_vs_dense", value=found.total / footprints["dense"].total)
