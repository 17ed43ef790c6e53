"""Checks whether a recipe can run here, before anything is allocated."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from moeprof.analysis.model_size import largest_batch, memory_need
from moeprof.huggingface.build import check_experts
from moeprof.instrument.machine import available_memory
from moeprof.models.build import make_model
from moeprof.models.checkpoint import check_checkpoint
from moeprof.parallel.group import Group
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import DENSE, STATIC, Variant
from moeprof.records.system.resources import process_limit
from moeprof.records.units import format_bytes

LIBRARIES_BYTES = 640 * 2**20
"""Address space that scipy, pandas and pyarrow take during a run; without it OpenBLAS, in scipy, waits for memory forever."""

LIBRARIES_RAM_BYTES = 136 * 2**20
"""RAM that they and torch's own modules take from the check to the end of a run, beside tensors: 124 to 134 MiB in runs of lm-tiny
and mt-tiny, at batches whose tensors took 20 to 111 MiB."""


def check_ranks(recipe: Recipe, group: Group) -> None:
    """UsageError if the recipe's number of ranks is not that of the group."""
    if recipe.parallel.ranks != group.size:
        raise UsageError(
            f"recipe {recipe.name}: {recipe.parallel.ranks} ranks requested, but {group.size} started",
            f"Use --ranks {group.size}, or start {recipe.parallel.ranks} ranks.",
        )


def check_device(recipe: Recipe) -> None:
    """MoeprofError if the recipe's device is not available."""
    if recipe.measure.device == "cuda" and not torch.cuda.is_available():
        raise MoeprofError(
            f"recipe {recipe.name}: device cuda, but torch {torch.__version__} finds no CUDA device here",
            "Use --device cpu, or a machine with a GPU; `moeprof doctor` reports what is missing.",
        )


def check_gpus(recipe: Recipe, neighbours: int) -> None:
    """UsageError if fewer GPUs are visible than the ranks of this machine; every rank needs one of its own."""
    visible = torch.cuda.device_count() if recipe.measure.device == "cuda" else neighbours
    if neighbours > visible:
        raise UsageError(
            f"recipe {recipe.name}: {neighbours} ranks on this machine need {neighbours} GPUs, but {visible} are visible",
            f"Use --ranks {visible}, or make more GPUs visible with CUDA_VISIBLE_DEVICES.",
        )


def check_weights(recipe: Recipe, variants: Sequence[Variant] = ()) -> None:
    """UsageError if the recipe's checkpoint is missing, damaged or of another shape, or its experts cannot run under a variant."""
    if isinstance(recipe.model, HuggingFaceSection):
        assert recipe.model.layers, "the command line resolves recipes before they run"
        check_experts(recipe, recipe.model, variants)
    elif recipe.model.checkpoint:
        check_checkpoint(make_model(recipe), Path(recipe.model.checkpoint), Group(0, recipe.parallel.ranks))


def memory_for_a_rank(recipe: Recipe, neighbours: int) -> int:
    """Free bytes for the tensors of one of `neighbours` ranks; MoeprofError if the libraries take all."""
    if (spare_bytes := spare_memory(recipe, neighbours)) > 0:
        return spare_bytes
    raise MoeprofError(
        f"recipe {recipe.name}: the libraries of every rank take {format_bytes(LIBRARIES_RAM_BYTES)} of memory, and "
        f"{format_bytes(LIBRARIES_BYTES)} of a limit set by `ulimit`, which leaves nothing for the model",
        "Raise the limit of memory (`ulimit -v`, `ulimit -d`, or that of the container), or use fewer ranks.",
    )


def spare_memory(recipe: Recipe, neighbours: int) -> int:
    """Free bytes of the recipe's device; ranks on one CPU get equal shares, without what libraries will take, or less than nothing."""
    available_bytes = available_memory(recipe.measure.device)
    if recipe.measure.device != "cpu":
        return available_bytes
    share_bytes = available_bytes // neighbours
    if "scipy" in sys.modules:
        return share_bytes
    limit_bytes = process_limit()
    return min(share_bytes - LIBRARIES_RAM_BYTES, share_bytes if limit_bytes is None else limit_bytes - LIBRARIES_BYTES)


def affordable(recipe: Recipe, variants: Sequence[Variant], neighbours: int) -> tuple[list[Variant], list[str]]:
    """The variants that fit the memory of one of `neighbours` ranks, and a remark on those that were omitted.

    If they do not all fit together, buffered variants run without those that keep all experts in memory.
    """
    buffered = [variant for variant in variants if variant.in_slots]
    if not buffered:
        return list(variants), []
    check_device(recipe)
    need, available_bytes = memory_need(recipe, variants=variants), memory_for_a_rank(recipe, neighbours)
    if need.total <= available_bytes:
        return list(variants), []
    names = ", ".join(variant.label for variant in variants if variant not in buffered)
    return buffered, [
        f"{names}: omitted, because all experts at once need {format_bytes(need.total)} and {format_bytes(available_bytes)} are free; "
        "outputs and speed have no baseline"
    ]


def check_memory(recipe: Recipe, available_bytes: int, variants: Sequence[Variant] = (STATIC, DENSE)) -> None:
    """MoeprofError if a rank needs more memory than it has; the remedy is what would fit."""
    need = memory_need(recipe, variants=variants)
    if need.total <= available_bytes:
        return
    batch_size = largest_batch(recipe, available_bytes, variants)
    models = need.weights + need.twin_weights
    if batch_size:
        remedy = f"Use --set load.batch_size={batch_size}, the largest that fits."
    elif models > available_bytes:
        remedy = f"The weights alone take {format_bytes(models)}: use a smaller recipe, such as {recipe.workload}-tiny."
    else:
        remedy = "Not even one sequence fits: use a smaller recipe, or a shorter --set load.sequence_length."
    raise MoeprofError(
        f"recipe {recipe.name}: needs {format_bytes(need.total)} on {recipe.measure.device}, "
        f"but {format_bytes(available_bytes)} are free",
        remedy,
    )
