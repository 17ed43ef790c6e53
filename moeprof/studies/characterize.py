"""Runs a workload unchanged, as deployed with static gating, beside its dense twin, and records what it does."""

from collections.abc import Sequence

from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import DENSE, OWN, STATIC, Variant
from moeprof.studies.passes.breakdown import measure_breakdown
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.quality import measure_quality
from moeprof.studies.passes.time import measure_time
from moeprof.studies.passes.timeline import trace_timeline
from moeprof.studies.passes.traffic import measure_traffic
from moeprof.studies.study import Pass, Study

PASSES: tuple[Pass, ...] = (
    measure_quality,
    measure_time,
    measure_breakdown,
    measure_memory,
    measure_traffic,
)


def characterization(variants: Sequence[Variant] = (STATIC, DENSE), *, timeline: bool = False) -> Study:
    """The study behind `moeprof characterize`."""
    passes = (*PASSES, trace_timeline) if timeline else PASSES
    return Study("characterize", variants, lambda _: passes)


def deployed(recipe: Recipe) -> tuple[Variant, ...]:
    """The model as it is deployed, and its dense twin: every model of moeprof's own has one, others if one is named."""
    if isinstance(recipe.model, HuggingFaceSection):
        return (OWN, DENSE) if recipe.model.dense_twin else (OWN,)
    return STATIC, DENSE
