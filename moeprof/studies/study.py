"""What all studies of a running model have in common: one recipe, some variants, passes over every phase, a run directory."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from moeprof.analysis.comparison.finite import not_finite_reasons
from moeprof.analysis.comparison.output_agreement import disagreements
from moeprof.analysis.derive import derive, salvage
from moeprof.analysis.timing.timing import noisy_rounds
from moeprof.instrument.allocator import give_back, keep_freed_memory
from moeprof.instrument.clock import Clock, synchronized
from moeprof.instrument.load import LoadMeter, own_time, usage
from moeprof.instrument.machine import environment, keep_within_quota
from moeprof.moe.kernels.auto import auto
from moeprof.parallel.collectives import total
from moeprof.parallel.group import ALONE, Group
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.recipe.weights import file_hash, weights_hash
from moeprof.records.run.run import Run, RunRecord
from moeprof.records.run.writer import RunWriter, UnwrittenRun
from moeprof.studies.agreement import agree
from moeprof.studies.feasibility import check_device, check_gpus, check_memory, check_ranks, check_weights, memory_for_a_rank
from moeprof.studies.passes.placement import place_experts
from moeprof.studies.passes.routing import record_routing
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.selection import judged
from moeprof.studies.services import Findings, Services, VariantRunner, buffers_for, calibrate, load_models, predictor_of
from moeprof.workloads.batches import token_sequences
from moeprof.workloads.episodes import Episode
from moeprof.workloads.registry import Workload, make_workload

Pass = Callable[[Services, str, Sequence[Episode]], Findings]
"""Runs one phase's episodes, records what it measures, and returns what else it found."""

RECORDING: tuple[Pass, ...] = (record_routing, place_experts)
"""Every study begins with these, on all episodes: they settle the tokens and the placements that the other passes work with."""

MIN_ROUNDS = 5
"""Fewer rounds say too little about their spread."""


@dataclass(frozen=True)
class Study:
    """A command's variants and the passes that they go through."""

    command: str
    variants: Sequence[Variant]
    passes: Callable[[Workload], Sequence[Pass]]
    """In order, for every phase, after those in RECORDING; they run the episodes that variants are compared on."""
    speedup_baselines: Sequence[Variant] = ()
    """Variants that speed-ups are computed against."""
    notes: Sequence[str] = ()
    """Remarks on the choice of variants."""

    def run(
        self,
        recipe: Recipe,
        out: Path,
        *,
        force: bool = False,
        argv: Sequence[str] = (),
        clock: Clock | None = None,
        progress: Progress | None = None,
        meter: LoadMeter | None = None,
        group: Group = ALONE,
    ) -> Run:
        """The finished run in `out`; whatever stops it leaves an invalid run there that can be read.

        All ranks of `group` call this alike, and the first one writes.
        """
        meter = meter or meter_of(group)
        check_ranks(recipe, group)
        self.check(recipe, group)
        keep_within_quota()
        workload = make_workload(recipe, group)
        if predictor := predictor_of(recipe, self.variants):
            predictor.check_unseen(token_sequences(workload.batches))
        record = self.record(recipe, workload, argv)
        record.notes += [*self.notes, *agree(group, record)]
        writer = (
            RunWriter(out, record, force=force, derive=derive, salvage=salvage) if group.first else UnwrittenRun(out, record)
        )
        clock, progress = clock or synchronized(recipe.measure.device), progress or Silent()
        with writer.guarded():
            self.fill(writer, workload, clock, progress, meter, group)
            return finished(writer) if group.first else writer.finish()

    def check(self, recipe: Recipe, group: Group) -> None:
        """MoeprofError if this machine cannot run its ranks of the recipe; nothing is allocated."""
        self.check_devices(recipe, group)
        check_weights(recipe, self.variants)
        check_memory(recipe, memory_for_a_rank(recipe, group.neighbours), self.variants)

    def check_devices(self, recipe: Recipe, group: Group) -> None:
        """MoeprofError unless every rank of this machine has a device; to be asked before a rank joins the others."""
        check_device(recipe)
        check_gpus(recipe, group.neighbours)

    def record(self, recipe: Recipe, workload: Workload, argv: Sequence[str]) -> RunRecord:
        """The run record as far as it is known before anything runs."""
        return RunRecord(
            command=self.command,
            argv=list(argv),
            recipe=recipe,
            variants=[{"label": variant.label, **asdict(variant)} for variant in self.variants],
            speedup_baselines=[variant.label for variant in self.speedup_baselines],
            environment=environment(recipe.measure.device),
            text_hashes=workload.text_hashes,
            fitted=workload.fitted,
            weights_hash=weights_hash(recipe),
            predictor_hash=next((file_hash(Path(one.predictor)) for one in self.variants if one.predictor), ""),
        )

    def fill(
        self, writer: RunWriter, workload: Workload, clock: Clock, progress: Progress, meter: LoadMeter, group: Group
    ) -> None:
        """Loads the models, and runs every pass of every phase."""
        recipe = writer.record.ran
        if recipe.measure.device == "cpu":
            keep_freed_memory()
        auto.take_remarks()  # remarks of earlier runs in this process do not belong to this one
        with torch.inference_mode():
            models = load_models(recipe, self.variants, progress, group)
            with buffers_for(recipe, models, group) as buffers:
                calibrate(models)
                runner = VariantRunner(models, group, buffers)
                self.run_passes(Services(recipe, writer, clock, progress, runner, group), workload, meter)

    def run_passes(self, services: Services, workload: Workload, meter: LoadMeter) -> None:
        """Runs every phase; what the passes find beside their records goes into the run record."""
        record = services.writer.record
        record.machine_load = meter.sample()
        passes = [*RECORDING, *self.passes(workload)]
        services.progress.plan(len(passes) * len(services.recipe.phases))
        for phase in services.recipe.phases:
            give_back(services.recipe.measure.device)  # the next phase has tensors of other sizes
            episodes = workload.episodes(phase)
            if not episodes:
                record.notes.append(f"phase {phase}: no sequence is long enough for it")
                for _ in passes:
                    services.progress.passed()
                continue
            for recording_pass in RECORDING:
                record.notes += recording_pass(services, phase, episodes).notes
                services.progress.passed()
            for run_pass in passes[len(RECORDING) :]:
                found = run_pass(services, phase, judged(services.runner.variants, episodes))
                record.notes += found.notes
                record.counters |= {phase: dict(found.counters)} if found.counters else {}
                record.machine_load = meter.sample()
                services.progress.passed()
            record.notes += [f"{phase}, {choosing(self.variants)}: {remark}" for remark in auto.take_remarks()]


def choosing(variants: Sequence[Variant]) -> str:
    """The labels of the variants whose kernel is chosen by its measured costs."""
    return ", ".join(one.label for one in variants if one.kernel == "auto" and not one.dense and not one.dispatch_entry.padded)


def meter_of(group: Group) -> LoadMeter:
    """Meters what the ranks of this run do not use; on several machines only the load before the run is known."""

    def used_by_ranks() -> float:
        return total(group, [round(own_time() * 1e9)])[0] / 1e9

    return LoadMeter(partial(usage, used_by_ranks) if group.neighbours == group.size else lambda: None)


def finished(writer: RunWriter) -> Run:
    """Derives the metrics and ends a run that all passes went through."""
    raw = Run(writer.path, writer.record)
    writer.record.noisy = noisy_rounds(raw)
    return writer.finish(*invalid_reasons(raw))


def invalid_reasons(run: Run) -> list[str]:
    """Why a run that ended normally is still not valid; none if it is."""
    rounds = run.record.ran.measure.rounds
    few = [f"too few rounds: {rounds}, at least {MIN_ROUNDS} are needed"] if rounds < MIN_ROUNDS else []
    return [*few, *not_finite_reasons(run), *disagreements(run)]
