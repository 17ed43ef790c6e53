"""Applies optimizations, one after another or each by itself, and compares them with what a model is deployed with today."""

from collections.abc import Sequence
from functools import partial

from moeprof.optimizations.optimization import Settings
from moeprof.optimizations.registry import optimized, useful
from moeprof.parallel.group import started_as
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, baselines
from moeprof.studies.feasibility import affordable
from moeprof.studies.passes.breakdown import measure_breakdown
from moeprof.studies.passes.loads import measure_loads
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.outputs import check_outputs
from moeprof.studies.passes.quality import measure_quality
from moeprof.studies.passes.slots import sweep_slots
from moeprof.studies.passes.sweep import measure_sweep
from moeprof.studies.passes.time import measure_time
from moeprof.studies.passes.timeline import trace_timeline
from moeprof.studies.passes.traffic import measure_traffic
from moeprof.studies.study import Pass, Study
from moeprof.workloads.registry import Workload

PASSES: tuple[Pass, ...] = (
    check_outputs,
    measure_quality,
    measure_time,
    measure_breakdown,
    measure_memory,
    measure_traffic,
    measure_loads,
)
"""Outputs are checked before anything is timed."""


def optimization(
    recipe: Recipe,
    names: Sequence[str],
    settings: Settings,
    *,
    against: Sequence[str] = (STATIC.label,),
    alone: bool = False,
    sweep: bool = True,
    timeline: bool = False,
) -> Study:
    """The study behind `moeprof optimize` for one recipe; without names, of all optimizations that apply to it.

    The dense twin computes something else: if it is the only baseline, static gating runs too, so that outputs can be compared.
    A placement's speed-up is computed over contiguous placement too.
    """
    compared = [baselines()[name] for name in dict.fromkeys(against)]
    with_experts = [variant for variant in compared if not variant.dense] or [STATIC]
    everything, remarks = useful(recipe)
    applied = optimized(names or everything, settings, recipe, alone=alone)
    wanted = list(dict.fromkeys([*with_experts, *compared, *applied]))
    variants, left_out = affordable(recipe, wanted, neighbours(recipe))

    def passes(workload: Workload) -> list[Pass]:
        chosen: list[Pass] = list(PASSES)
        if settings.get("sweep-slots"):
            chosen.append(sweep_slots)
        if sweep:
            chosen.append(partial(measure_sweep, workload))
        if timeline:
            chosen.append(trace_timeline)
        return chosen

    held = dict.fromkeys([*compared, *(variant.unplaced for variant in applied if variant.placed)])
    speedup_baselines = [variant for variant in held if variant in variants]
    return Study("optimize", variants, passes, speedup_baselines, [*([] if names else remarks), *left_out])


def neighbours(recipe: Recipe) -> int:
    """Ranks that will share this machine: those that a launcher started here, or all of the recipe's."""
    group = started_as()
    return recipe.parallel.ranks if group.alone else group.neighbours
