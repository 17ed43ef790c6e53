"""Applies optimizations, one after another or each by itself, and compares them with what a model is deployed with today."""

from collections.abc import Callable, Sequence
from functools import partial

from moeprof.optimizations.optimization import Settings
from moeprof.optimizations.presets import premises, preset_variants, resident_variant
from moeprof.optimizations.registry import optimized, useful
from moeprof.parallel.group import started_as
from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import OWN, STATIC, Variant, baselines
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
    against: Sequence[str] = (),
    alone: bool = False,
    sweep: bool = True,
    timeline: bool = False,
) -> Study:
    """The study behind `moeprof optimize` for one recipe; without names, of all optimizations that apply to it.

    The dense twin computes something else: if it is the only baseline, static gating runs too, so that outputs can be compared.
    A placement's speed-up is computed over contiguous placement too. A Hugging Face model is compared with its own backend; beside
    dynamic gating there is a row of what fixed capacity would cost, against which no speed-up is computed.
    """
    compared = compared_with(recipe, against)
    with_experts = [variant for variant in compared if not variant.dense] or [STATIC]
    everything, remarks = useful(recipe)
    applied = optimized(names or everything, settings, recipe, alone=alone)
    capacity = [STATIC] if compared == [OWN] and any(variant.dispatch_entry.function for variant in applied) else []
    wanted = list(dict.fromkeys([*with_experts, *compared, *capacity, *applied]))
    variants, left_out = affordable(recipe, wanted, neighbours(recipe))

    held = dict.fromkeys([*compared, *(variant.unplaced for variant in applied if variant.placed)])
    speedup_baselines = [variant for variant in held if variant in variants]
    cost = [
        f"static is what fixed capacity would cost: an expert takes {recipe.gating.capacity_fraction:.3g} of a step's tokens"
    ]
    notes = [*([] if names else remarks), *(cost if capacity else []), *left_out]
    return Study("optimize", variants, passes_of(settings, sweep=sweep, timeline=timeline), speedup_baselines, notes)


def passes_of(settings: Settings, *, sweep: bool, timeline: bool) -> Callable[[Workload], list[Pass]]:
    """The passes of a comparison, and those that the user asked for."""

    def passes(workload: Workload) -> list[Pass]:
        chosen: list[Pass] = list(PASSES)
        if settings.get("sweep-slots"):
            chosen.append(sweep_slots)
        if sweep:
            chosen.append(partial(measure_sweep, workload))
        if timeline:
            chosen.append(trace_timeline)
        return chosen

    return passes


def offloading(
    recipe: Recipe, presets: Sequence[str], settings: Settings, *, timeline: bool = False, strict: bool = False
) -> Study:
    """The study behind `moeprof optimize --presets`: offloading systems beside each other and beside the resident model.

    All get the same fast memory. Speed-ups are computed over loading on demand, or over the first system if that does not run, since
    no system can be faster than the model in fast memory. With `strict`, UsageError if a premise of a system is not met.
    """
    systems = preset_variants(presets, settings, recipe)
    unmet = list(premises(systems, recipe))
    if strict and unmet:
        raise UsageError(unmet[0], "Leave out this preset, or --strict.")
    variants, left_out = affordable(recipe, [resident_variant(settings, recipe), *systems], neighbours(recipe))
    over = next((one for one in systems if one.store == "on-demand"), systems[0])
    passes = passes_of(settings, sweep=False, timeline=timeline)
    return Study("optimize", variants, passes, [over] if len(systems) > 1 else [], [*unmet, *left_out])


def compared_with(recipe: Recipe, against: Sequence[str]) -> list[Variant]:
    """The variants that speed-ups are computed against: those named, or what the model is deployed with."""
    if not isinstance(recipe.model, HuggingFaceSection):
        return [baselines()[name] for name in dict.fromkeys(against or (STATIC.label,))]
    if against:
        raise UsageError(f"--against {against[0]}: a Hugging Face model is compared with its own backend", "Remove --against.")
    if recipe.model.device_map:
        what = f"model {recipe.model.huggingface}: a device map may place layers on several devices, and optimizations use one"
        raise UsageError(what, "Leave out --device-map (model.device_map); with it, the model can be characterized.")
    return [OWN]


def neighbours(recipe: Recipe) -> int:
    """Ranks that will share this machine: those that a launcher started here, or all of the recipe's."""
    group = started_as()
    return recipe.parallel.ranks if group.alone else group.neighbours
