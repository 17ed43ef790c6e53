"""The pass `memory`: one batch under every variant, every live tensor tracked."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any

import torch

from moeprof.instrument.memory import MemoryTracker
from moeprof.parallel.collectives import all_gather_json, gathered
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import FOOTPRINTS
from moeprof.records.traces.columns import packed, unpacked
from moeprof.records.units import format_bytes
from moeprof.studies.selection import beginning
from moeprof.studies.services import Findings, Services
from moeprof.workloads.episodes import Episode, Round


@dataclass(frozen=True)
class Footprint:
    """What one variant needs for a phase, bytes."""

    static: int
    dynamic: int
    at_peak: Mapping[str, int]
    """By category, weights included, when the total was highest."""
    by_region: Mapping[str, int]
    """Most dynamic bytes while in it."""
    by_category: Mapping[str, int]

    @property
    def total(self) -> int:
        """The parameters and the peak of the rest."""
        return self.static + self.dynamic

    def rows(self, phase: str, variant: str) -> Iterator[dict[str, Any]]:
        """Rows of the raw table `footprints`."""
        parts = {
            "static": {"": self.static},
            "dynamic": {"": self.dynamic},
            "region": self.by_region,
            "category": self.by_category,
            "at_peak": self.at_peak,
        }
        for measure, sizes in parts.items():
            for name, size_bytes in sizes.items():
                yield {"phase": phase, "variant": variant, "measure": measure, "name": name, "bytes": size_bytes}


def measure_memory(services: Services, phase: str, episodes: Sequence[Episode]) -> Findings:
    """Records the peaks of the first batch (a few steps of it in `decode`) on every rank, and their course on the worst rank."""
    services.progress.stage(f"{phase}: memory", len(services.runner.variants))
    notes: list[str] = []
    for variant in services.runner.variants:
        worst = measure_variant(services, phase, variant, episodes[0])
        budget = services.recipe.budget.memory
        if budget is not None and worst.total > budget:
            notes.append(
                f"{phase}: one batch of {services.recipe.load.batch_size} under {variant.label} needs "
                f"{format_bytes(worst.total)}, more than the budget of {format_bytes(budget)}"
            )
        services.progress.advance()
    return Findings(notes)


def measure_variant(services: Services, phase: str, variant: Variant, episode: Episode) -> Footprint:
    """Records one variant; the footprint of the rank that needs most."""
    model, tracker = services.runner.select(variant), services.runner.tracker(variant, services.clock)
    mine = footprint(tracker, partial(beginning(episode).ready, model))
    services.record(FOOTPRINTS, mine.rows(phase, variant.label))
    ranks = [Footprint(*found) for found in all_gather_json(services.group, astuple(mine))]
    worst = max(ranks, key=lambda found: found.total)
    tables = gathered(services.group, packed(tracker.table(phase, variant.label)))
    if services.group.first:
        services.writer.add_memory(unpacked(tables[ranks.index(worst)]))
    return worst


def footprint(tracker: MemoryTracker, ready: Callable[[], Round]) -> Footprint:
    """Plays an episode once; its untimed beginning counts only by what it leaves behind."""
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
    """Makes the allocator's peak count from here."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def peak_allocated() -> int:
    """Most bytes that CUDA's allocator had handed out at once."""
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()
