"""Runs a workload unchanged, as deployed with static gating, beside its dense twin, and records what it does."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from moeprof.analysis.routing import routing_rows
from moeprof.analysis.sizes import flops_per_token, largest_batch, memory_need, parameters_by_part, weight_bytes
from moeprof.analysis.static_cost import StepSize, static_cost_rows
from moeprof.analysis.timing import Timing, noisy, slowdown_rows, timing_rows
from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import Clock, synchronized
from moeprof.instrument.machine import available_memory, environment
from moeprof.instrument.probe import observed_by
from moeprof.instrument.routing import RoutingRecorder
from moeprof.instrument.timing import interleaved
from moeprof.models.build import Model, build_model, weights_hash
from moeprof.moe.forced import make_forced_routing
from moeprof.moe.layer import force_routing, use_variant
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.metrics import Address, MetricRow
from moeprof.records.recipe import Recipe
from moeprof.records.routing_trace import TraceHeader
from moeprof.records.run import Run, RunRecord, RunWriter
from moeprof.records.units import format_bytes
from moeprof.records.variant import DENSE, STATIC, Variant
from moeprof.studies.progress import Progress, Silent
from moeprof.workloads.episodes import Episode, num_tokens
from moeprof.workloads.registry import Workload, make_workload

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
) -> Run:
    """The finished run in `out`; whatever stops it leaves an invalid run there that can be read."""
    check_device(recipe)
    check_memory(recipe, available_memory(recipe.measure.device))
    workload = make_workload(recipe)
    writer = RunWriter(out, new_record(recipe, workload, argv), force=force)
    try:
        Characterization(recipe, workload, writer, clock or synchronized(recipe.measure.device), progress or Silent()).run()
    except KeyboardInterrupt:
        writer.finish("interrupted")
        raise
    except Exception as error:
        writer.finish(f"failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        raise
    return writer.finish(*reasons_against(recipe))


class Characterization:
    """The passes of one run, phase by phase."""

    def __init__(self, recipe: Recipe, workload: Workload, writer: RunWriter, clock: Clock, progress: Progress) -> None:
        self.recipe, self.workload, self.writer = recipe, workload, writer
        self.clock, self.progress = clock, progress

    def run(self) -> None:
        """Every phase: first the routing, then the time."""
        if self.recipe.measure.device == "cpu":
            keep_freed_memory()
        with torch.inference_mode():
            self.progress.stage("weights", 2)
            self.model = self.built()
            self.twin = self.built(dense=True)
            self.writer.add_metrics(size_rows(self.recipe))
            for phase in self.recipe.phases:
                episodes = self.workload.episodes(phase)
                if not episodes:
                    self.writer.record.notes.append(f"phase {phase}: no sequence is long enough for it")
                    continue
                self.record_routing(phase, episodes)
                self.measure_time(phase, episodes)

    def built(self, *, dense: bool = False) -> Model:
        """The model, or its twin, ready to run."""
        model = build_model(self.recipe, dense=dense)
        use_variant(model, STATIC)
        force_routing(model, make_forced_routing(self.recipe))
        self.progress.advance()
        return model

    def record_routing(self, phase: str, episodes: Sequence[Episode]) -> None:
        """The pass `routing`: every batch once, every decision kept."""
        self.progress.stage(f"{phase}: routing", len(episodes))
        recorder = RoutingRecorder()
        for episode in episodes:
            episode.settle(self.model)
            play = episode.ready(self.model)
            with observed_by(recorder):
                play()
            self.progress.advance()
        trace = recorder.trace(trace_header(self.recipe, phase, STATIC))
        self.writer.add_trace(trace)
        sizes = [StepSize(e.domain, recorder.rows_seen[step.index], step.num_tokens) for e in episodes for step in e.steps]
        self.writer.add_metrics(static_cost_rows(self.recipe, phase, STATIC.label, sizes))
        self.writer.add_metrics(routing_rows(trace))

    def measure_time(self, phase: str, episodes: Sequence[Episode]) -> None:
        """The pass `time`: the first batch of every domain, the model and its twin in turns."""
        measure = self.recipe.measure
        first = {episode.domain: episode for episode in reversed(episodes)}
        self.progress.stage(f"{phase}: time", len(first) * (measure.warmup + measure.rounds))
        timings: list[Timing] = []
        for domain, episode in reversed(first.items()):
            contenders = {STATIC.label: episode.ready(self.model), DENSE.label: episode.ready(self.twin)}
            samples = interleaved(
                contenders, rounds=measure.rounds, warmup=measure.warmup, clock=self.clock, between=self.progress.advance
            )
            sizes = len(episode.steps), num_tokens(episode)
            timings += [Timing(variant, domain, rounds_ns, *sizes) for variant, rounds_ns in samples.items()]
        self.keep_timings(phase, timings)

    def keep_timings(self, phase: str, timings: Sequence[Timing]) -> None:
        """Into the table, the samples and the run's remarks."""
        for row, values in timing_rows(self.recipe.workload, phase, timings):
            self.writer.add_metrics([row])
            self.writer.add_samples(row, values)
        self.writer.add_metrics(slowdown_rows(self.recipe.workload, phase, timings))
        self.writer.record.noisy += noisy(phase, timings)


def new_record(recipe: Recipe, workload: Workload, argv: Sequence[str]) -> RunRecord:
    """What is known before anything ran."""
    return RunRecord(
        command="characterize",
        argv=list(argv),
        recipe=recipe,
        variants=[{"label": variant.label, **asdict(variant)} for variant in (STATIC, DENSE)],
        environment=environment(recipe.measure.device),
        text_hashes=workload.text_hashes,
        weights_hash=weights_hash(recipe),
    )


def trace_header(recipe: Recipe, phase: str, variant: Variant) -> TraceHeader:
    """Of the trace that a phase leaves under a variant."""
    return TraceHeader(
        workload=recipe.workload,
        phase=phase,
        variant=variant.label,
        num_experts=recipe.model.experts,
        top_k=recipe.gating.top_k,
        layers=recipe.moe_layers(phase),
        forced=recipe.routing.source != "model",
    )


def size_rows(recipe: Recipe) -> list[MetricRow]:
    """Parameters, bytes and FLOPs of the model and its twin."""
    rows = []
    for variant in (STATIC, DENSE):
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


def check_device(recipe: Recipe) -> None:
    """MoeprofError where the recipe's device or number of ranks cannot be had."""
    if recipe.measure.device == "cuda" and not torch.cuda.is_available():
        raise MoeprofError(
            f"recipe {recipe.name}: device cuda, but torch {torch.__version__} finds no CUDA device here",
            "Use --device cpu, or run it on a machine with a GPU; `moeprof doctor` says what is missing.",
        )
    if recipe.parallel.ranks > 1:
        raise UsageError(
            f"recipe {recipe.name}: {recipe.parallel.ranks} ranks asked for; this version runs one",
            "Use --ranks 1, or leave it out.",
        )


def check_memory(recipe: Recipe, available_bytes: int) -> None:
    """MoeprofError where the recipe needs more than there is; nothing has been allocated yet."""
    need = memory_need(recipe)
    if need.total <= available_bytes:
        return
    batch_size = largest_batch(recipe, available_bytes)
    models = need.weights + need.twin_weights
    if batch_size:
        remedy = f"Use --set load.batch_size={batch_size}, the largest that fits."
    elif models > available_bytes:
        remedy = (
            f"The weights alone take {format_bytes(models)}: use a smaller recipe, such as {recipe.workload}-small or -tiny."
        )
    else:
        remedy = "Not even one sequence fits: use a smaller recipe, or a shorter --set load.sequence_length."
    raise MoeprofError(
        f"recipe {recipe.name}: needs {format_bytes(need.total)} on {recipe.measure.device}, "
        f"of which {format_bytes(available_bytes)} are free",
        remedy,
    )
