"""Sweeps of small models, their curves, and what a batch needs when it is simply weighed."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch

from moeprof.instrument.memory import MemoryTracker
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run
from moeprof.studies.passes.memory import footprint
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.sweep import measure_sweep, ready
from moeprof.studies.progress import Progress
from moeprof.studies.selection import beginning
from moeprof.studies.study import Study
from moeprof.workloads.registry import make_workload

from ..runs import DYNAMIC, services_of, values

BUDGET = "budget.memory=200KiB"
SCORE = "load.phases=['score']"


def swept(
    recipe: Path,
    out: Path,
    *overrides: str,
    variants: Sequence[Variant] = (STATIC, DYNAMIC),
    clock: Callable[[], int] | None = None,
    progress: Progress | None = None,
) -> Run:
    """A run of little but the sweep, told against static gating."""
    study = Study("optimize", variants, lambda workload: (check_outputs, partial(measure_sweep, workload)), (STATIC,))
    return study.run(load_recipe(str(recipe), overrides), out, clock=clock, progress=progress)


def curve(run: Run, metric: str, phase: str, variant: Variant) -> dict[int, float]:
    """Values by batch."""
    found = values(run, metric, "point", phase=phase, variant=variant.label)
    return {int(point.removeprefix("batch=")): value for (point,), value in found.items() if point}


def only(run: Run, metric: str, phase: str = "score", variant: Variant = STATIC) -> float:
    """The value over all domains and batches."""
    return values(run, metric, phase=phase, variant=variant.label)[()]


def weigh(recipe_path: Path, phase: str, variant: Variant, out: Path, *overrides: str) -> Callable[[int], int]:
    """The bytes that a variant needs for a batch, found without any limit or search."""
    recipe = load_recipe(str(recipe_path), overrides)
    services = services_of(recipe, out, (STATIC, variant), command="optimize")
    workload = make_workload(recipe)
    episodes = workload.episodes(phase)
    with torch.inference_mode():
        for episode in episodes:
            episode.settle(services.runner.select(STATIC))

    @cache
    def needed(batch: int) -> int:
        with torch.inference_mode():
            episode = beginning(workload.mixture(phase, episodes, batch))
            tracker = MemoryTracker(services.runner.models[variant])
            return footprint(tracker, partial(ready, services, variant, episode)).total

    return needed
