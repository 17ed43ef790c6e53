"""Runs a workload unchanged, as deployed with static gating, beside its dense twin, and records what it does."""

from moeprof.records.recipe.variant import DENSE, STATIC
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
VARIANTS = (STATIC, DENSE)


def characterization(*, timeline: bool = False) -> Study:
    """The study behind `moeprof characterize`."""
    passes = (*PASSES, trace_timeline) if timeline else PASSES
    return Study("characterize", VARIANTS, lambda _: passes)
