"""Runs a workload unchanged, as deployed with static gating, beside its dense twin, and records what it does."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from moeprof.analysis.sizes import flops_per_token, parameters_by_part, weight_bytes
from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import Clock, synchronized
from moeprof.instrument.machine import available_memory
from moeprof.records.metrics import Address, MetricRow
from moeprof.records.recipe import Recipe
from moeprof.records.run import Run, RunWriter
from moeprof.records.variant import DENSE, STATIC
from moeprof.studies.feasibility import check_device, check_memory, check_weights
from moeprof.studies.passes.breakdown import measure_breakdown
from moeprof.studies.passes.memory import measure_memory
from moeprof.studies.passes.quality import measure_quality
from moeprof.studies.passes.routing import record_routing
from moeprof.studies.passes.time import measure_time
from moeprof.studies.passes.timeline import trace_timeline
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.session import Session, load_models, new_record
from moeprof.workloads.episodes import Episode
from moeprof.workloads.registry import Workload, make_workload

Pass = Callable[[Session, str, Sequence[Episode]], None]
PASSES: tuple[Pass, ...] = (record_routing, measure_quality, measure_time, measure_breakdown, measure_memory)
"""In order, for every phase; the first one settles the tokens."""

VARIANTS = (STATIC, DENSE)
MIN_ROUNDS = 5
"""Fewer say too little about the spread."""


def characterize(
    recipe: Recipe,
    out: Path,
    *,
    force: bool = False,
    argv: Sequence[str] = (),
    clock: Clock | None = None,
    progress: Progress | None = None,
    timeline: bool = False,
) -> Run:
    """The finished run in `out`; whatever stops it leaves an invalid run there that can be read."""
    passes = (*PASSES, trace_timeline) if timeline else PASSES
    check_device(recipe)
    check_weights(recipe)
    check_memory(recipe, available_memory(recipe.measure.device))
    workload = make_workload(recipe)
    writer = RunWriter(out, new_record("characterize", recipe, VARIANTS, workload, argv), force=force)
    try:
        run_phases(recipe, workload, writer, clock or synchronized(recipe.measure.device), progress or Silent(), passes)
    except KeyboardInterrupt:
        writer.finish("interrupted")
        raise
    except Exception as error:
        writer.finish(f"failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        raise
    return writer.finish(*reasons_against(recipe))


def run_phases(
    recipe: Recipe, workload: Workload, writer: RunWriter, clock: Clock, progress: Progress, passes: Sequence[Pass]
) -> None:
    """Every pass of every phase."""
    if recipe.measure.device == "cpu":
        keep_freed_memory()
    writer.add_metrics(size_rows(recipe))
    with torch.inference_mode():
        session = Session(recipe, writer, clock, progress, load_models(recipe, VARIANTS, progress))
        for phase in recipe.phases:
            episodes = workload.episodes(phase)
            if not episodes:
                writer.record.notes.append(f"phase {phase}: no sequence is long enough for it")
                continue
            for run_pass in passes:
                run_pass(session, phase, episodes)


def size_rows(recipe: Recipe) -> list[MetricRow]:
    """Parameters, bytes and FLOPs of the model and its twin."""
    rows = []
    for variant in VARIANTS:
        address: Address = {"workload": recipe.workload, "variant": variant.label}
        parts = parameters_by_part(recipe.model, dense=variant.dense)
        rows += [
            MetricRow("num_parameters", sum(parts.values()), **address),
            MetricRow("expert_parameters", parts["experts"], **address),
            MetricRow("memory_static", weight_bytes(recipe.model, dense=variant.dense), **address),
            MetricRow("flops_per_token", flops_per_token(recipe, dense=variant.dense), **address),
        ]
    return rows


def reasons_against(recipe: Recipe) -> list[str]:
    """Why a run that came to its end should still not be believed."""
    rounds = recipe.measure.rounds
    return [f"too few rounds: {rounds}, at least {MIN_ROUNDS} are needed"] if rounds < MIN_ROUNDS else []
