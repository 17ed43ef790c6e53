"""Parameters, bytes and FLOPs of a run's model under every variant, and what expert slots save: from the run record alone."""

from collections.abc import Iterator
from dataclasses import replace

from moeprof.analysis.model_size import (
    expert_parameters,
    flops_per_token,
    local_experts,
    num_parameters,
    slots_to_try,
    static_bytes,
)
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import MetricRow, Samples
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.run import Run


def model_size_rows(run: Run) -> Iterator[Samples]:
    """The rows of every variant, and of a dense twin whose shape follows from the recipe."""
    recipe = run.record.ran
    for label, variant in run.record.variants_by_label.items():
        if variant.dense and isinstance(recipe.model, HuggingFaceSection):
            continue
        for row in [*size_rows(recipe, label, variant), *saving_rows(recipe, label, variant)]:
            yield row, []


def size_rows(recipe: Recipe, label: str, variant: Variant) -> Iterator[MetricRow]:
    """Parameters, bytes and FLOPs under one variant."""
    values = {
        "num_parameters": num_parameters(recipe.model, dense=variant.dense),
        "expert_parameters": 0 if variant.dense else expert_parameters(recipe.model),
        "memory_static": static_bytes(recipe, variant),
        "flops_per_token": flops_per_token(recipe, dense=variant.dense),
    }
    return (MetricRow(name, value, workload=recipe.workload, variant=label) for name, value in values.items())


def saving_rows(recipe: Recipe, label: str, variant: Variant) -> Iterator[MetricRow]:
    """What every number of slots saves on a rank (paper 5.5); the variant's own slots have rows without a point too."""
    if not recipe.buffered_layers(variant):
        return
    whole = static_bytes(recipe, replace(variant, buffered="", slots=0, replicas=0))
    for slots in slots_to_try(local_experts(recipe), variant.slots):
        kept = static_bytes(recipe, replace(variant, slots=slots))
        values = {"memory_saved": whole - kept, "memory_saved_share": 1 - kept / whole, "memory_reduction": whole / kept}
        at = MetricRow("", 0, recipe.workload, variant=label, point=format_point({"slots": slots}))
        for name, value in (values | {"memory_static": kept}).items():
            yield replace(at, metric=name, value=value)
        if slots == variant.slots:
            for name, value in (values | {"expert_slots_per_layer": slots}).items():
                yield replace(at, metric=name, value=value, point="")
