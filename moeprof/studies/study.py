"""What all studies of a running model have in common: one recipe, some contenders, passes over every phase, a run directory."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from moeprof.analysis.model_size import (
    flops_per_token,
    local_experts,
    parameters_by_part,
    slots_to_try,
    static_bytes,
)
from moeprof.instrument.allocator import keep_freed_memory
from moeprof.instrument.clock import Clock, synchronized
from moeprof.moe.kernels.auto import auto
from moeprof.parallel.group import ALONE, Group
from moeprof.records.metrics.point import format_point
from moeprof.records.metrics.registry import Address, MetricRow
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import STATIC, Variant
from moeprof.records.run.run import Run
from moeprof.records.run.writer import RunWriter, UnwrittenRun
from moeprof.studies.agreement import agree
from moeprof.studies.feasibility import check_device, check_memory, check_ranks, check_weights, memory_for_a_rank
from moeprof.studies.progress import Progress, Silent
from moeprof.studies.session import Session, buffers_for, calibrate, load_models, new_record
from moeprof.workloads.episodes import Episode
from moeprof.workloads.registry import Workload, make_workload

Pass = Callable[[Session, str, Sequence[Episode]], None]

MIN_ROUNDS = 5
"""Fewer say too little about the spread."""


@dataclass(frozen=True)
class Study:
    """A command's contenders and what is done with them."""

    command: str
    variants: Sequence[Variant]
    passes: Callable[[Workload], Sequence[Pass]]
    """In order, for every phase; the first one settles the tokens, and places experts by them where a contender wants that."""
    against: Sequence[Variant] = ()
    """Contenders that speed-ups are told against."""
    notes: Sequence[str] = ()
    """What a reader must know about the choice of contenders."""

    def run(
        self,
        recipe: Recipe,
        out: Path,
        *,
        force: bool = False,
        argv: Sequence[str] = (),
        clock: Clock | None = None,
        progress: Progress | None = None,
        group: Group = ALONE,
    ) -> Run:
        """The finished run in `out`; whatever stops it leaves an invalid run there that can be read.

        All ranks of `group` call this alike, and the first one writes.
        """
        check_ranks(recipe, group)
        self.check(recipe, group)
        workload = make_workload(recipe, group)
        record = new_record(self.command, recipe, self.variants, workload, argv)
        record.notes += [*self.notes, *agree(group, record)]
        writer = RunWriter(out, record, force=force) if group.first else UnwrittenRun(out, record)
        against = [variant.label for variant in self.against]
        clock, progress = clock or synchronized(recipe.measure.device), progress or Silent()
        session = Session(recipe, writer, clock, progress, {}, against, group=group)
        with writer.guarded():
            self.fill(session, workload)
        return writer.finish(*reasons_against(recipe), *session.doubts)

    def check(self, recipe: Recipe, group: Group) -> None:
        """MoeprofError where this machine cannot run its ranks of the recipe; nothing is allocated."""
        check_device(recipe)
        check_weights(recipe)
        check_memory(recipe, memory_for_a_rank(recipe, group.neighbours), self.variants)

    def fill(self, session: Session, workload: Workload) -> None:
        """Loads the models, and runs every pass of every phase."""
        recipe, writer = session.recipe, session.writer
        if recipe.measure.device == "cpu":
            keep_freed_memory()
        writer.add_metrics(size_rows(recipe, self.variants))
        auto.take_remarks()  # whatever ran before in this process is not this run's
        with torch.inference_mode():
            session.contenders.update(load_models(recipe, self.variants, session.progress, session.group))
            with buffers_for(recipe, session.contenders, session.group) as buffers:
                calibrate(session.contenders)
                self.run_passes(replace(session, buffers=buffers), workload)

    def run_passes(self, session: Session, workload: Workload) -> None:
        """Phase by phase."""
        notes = session.writer.record.notes
        for phase in session.recipe.phases:
            episodes = workload.episodes(phase)
            if not episodes:
                notes.append(f"phase {phase}: no sequence is long enough for it")
                continue
            settle, *others = self.passes(workload)
            settle(session, phase, episodes)
            for run_pass in others:
                run_pass(session, phase, session.judged(episodes))
            notes += [f"{phase}: {remark}" for remark in auto.take_remarks()]


def size_rows(recipe: Recipe, variants: Sequence[Variant]) -> list[MetricRow]:
    """Parameters, bytes and FLOPs of the model under every variant, and of its twin."""
    rows = []
    for variant in variants:
        address: Address = {"workload": recipe.workload, "variant": variant.label}
        parts = parameters_by_part(recipe.model, dense=variant.dense)
        rows += [
            MetricRow("num_parameters", sum(parts.values()), **address),
            MetricRow("expert_parameters", parts["experts"], **address),
            MetricRow("memory_static", static_bytes(recipe, variant), **address),
            MetricRow("flops_per_token", flops_per_token(recipe, dense=variant.dense), **address),
        ]
        rows += [row for slots in slots_of(recipe, variant) for row in saving_rows(recipe, variant, slots)]
    return rows


def slots_of(recipe: Recipe, variant: Variant) -> list[int]:
    """Numbers of slots whose memory is told; none of a variant whose experts are all resident."""
    return slots_to_try(local_experts(recipe), variant.slots) if recipe.buffered_layers(variant) else []


def saving_rows(recipe: Recipe, variant: Variant, slots: int) -> Iterator[MetricRow]:
    """What so many slots save on a rank (paper 5.5), at a point of their own and, where they are the variant's, without one."""
    whole, kept = static_bytes(recipe, STATIC), static_bytes(recipe, replace(variant, slots=slots))
    values = {"memory_saved": whole - kept, "memory_saved_share": 1 - kept / whole, "memory_reduction": whole / kept}
    at = MetricRow("", 0, recipe.workload, variant=variant.label, point=format_point({"slots": slots}))
    for name, value in (values | {"memory_static": kept}).items():
        yield replace(at, metric=name, value=value)
    if slots == variant.slots:
        for name, value in (values | {"expert_slots_per_layer": slots}).items():
            yield replace(at, metric=name, value=value, point="")


def reasons_against(recipe: Recipe) -> list[str]:
    """Why a run that came to its end should still not be believed."""
    rounds = recipe.measure.rounds
    return [f"too few rounds: {rounds}, at least {MIN_ROUNDS} are needed"] if rounds < MIN_ROUNDS else []
