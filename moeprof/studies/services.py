"""What a pass works with: the variants ready to run, the run being written, the clock, the other ranks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from moeprof.analysis.model_size import always_buffered
from moeprof.huggingface.build import buffers_of, build_twin
from moeprof.huggingface.build import build_model as build_huggingface
from moeprof.huggingface.model import HuggingFaceModel
from moeprof.instrument.clock import Clock
from moeprof.instrument.memory import MemoryTracker
from moeprof.instrument.timing import PreparedRound
from moeprof.models.buffers import RecipeBuffers
from moeprof.models.build import Model, build_model
from moeprof.moe.buffers import Buffers
from moeprof.moe.forced import make_forced_routing
from moeprof.moe.kernels.auto import auto
from moeprof.moe.layer import force_routing, static_tensors, use_variant
from moeprof.moe.sparse_layer import sparse_layers
from moeprof.parallel.collectives import barrier, gathered
from moeprof.parallel.group import ALONE, Group
from moeprof.predictors.forecaster import Forecaster
from moeprof.predictors.predictor import ExpertPredictor
from moeprof.records.placement import Placement
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.run.raw_tables import RawTable
from moeprof.records.run.writer import RunWriter
from moeprof.records.traces.columns import packed, unpacked
from moeprof.studies.progress import Progress
from moeprof.workloads.episodes import DecodeEpisode, Episode, Marker, Round, unmarked

RunModel = Model | HuggingFaceModel
"""The models that passes can run."""


@dataclass(frozen=True, eq=False)
class VariantRunner:
    """The variants of a study and the models that they run on, of which the MoE variants share one."""

    models: Mapping[Variant, RunModel]
    """In the order of the report."""
    group: Group = ALONE
    buffers: Buffers | None = None
    """The slots of the buffered variants; None if there are none."""
    placements: dict[Variant, Placement] = field(default_factory=dict)
    """Where the experts are now, under variants that place them."""

    @property
    def variants(self) -> list[Variant]:
        """All variants, in the order of the report."""
        return list(self.models)

    @property
    def routed(self) -> list[Variant]:
        """The variants that have experts."""
        return [variant for variant in self.models if not variant.dense]

    @property
    def baseline(self) -> Variant:
        """The first variant that has experts: the others decode its tokens, and their outputs are compared with its own."""
        return self.routed[0]

    def select(self, variant: Variant) -> RunModel:
        """The variant's model, executed from now on as `variant` says, after all loads that other variants have begun."""
        if self.buffers is not None:
            self.buffers.ledger.rest()
        model = self.models[variant]
        use_variant(model, variant)
        return model

    def begin(self, variant: Variant, play: Round) -> None:
        """Selects a variant, rewinds its round, and waits for the other ranks, so that none of them starts a round early."""
        self.select(variant)
        play.rewind()
        barrier(self.group)

    def prepare(self, variant: Variant, episode: Episode, mark: Marker = unmarked) -> PreparedRound:
        """A round of one variant on an episode; each time it runs, it selects the variant first, off the clock."""
        play = episode.ready(self.select(variant), mark)
        return PreparedRound(play, partial(self.begin, variant, play))

    def prepare_beginning(self, variant: Variant, episode: DecodeEpisode) -> PreparedRound:
        """What precedes the rounds of `prepare` (the prompt or the source) as a round of its own."""
        play = Round(lambda: episode.begin(self.models[variant]).first_B)
        return PreparedRound(play, partial(self.begin, variant, play))

    def tracker(self, variant: Variant, clock: Clock, limit_bytes: int | None = None) -> MemoryTracker:
        """A tracker of what one variant needs, without the experts or slots of others."""
        model = self.models[variant]
        return MemoryTracker(model, clock, limit_bytes, static_tensors(model, variant))


@dataclass(frozen=True, eq=False)
class Services:
    """What every pass is given."""

    recipe: Recipe
    writer: RunWriter
    clock: Clock
    progress: Progress
    runner: VariantRunner
    group: Group = ALONE
    """This rank among those of the run; all of them run the same passes."""

    @property
    def half_the_rounds(self) -> int:
        """Rounds of a pass that runs each one with and without its instrument: half of those of the pass `time`."""
        return (self.recipe.measure.rounds + 1) // 2

    def record(self, table: RawTable, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds the rows of every rank to a raw table, rank by rank; all ranks call it alike."""
        mine = [{**row, "rank": self.group.rank} for row in rows]
        parts = gathered(self.group, packed(pa.Table.from_pylist(mine, schema=table.schema)))
        if self.group.first:
            self.writer.append(table, pa.concat_tables([unpacked(part) for part in parts]))


@dataclass(frozen=True)
class Findings:
    """What a pass found beside its raw records."""

    notes: Sequence[str] = ()
    """Remarks for the reader of the report."""
    counters: Mapping[str, str] = field(default_factory=dict)
    """Readings of the device's counters."""


def load_models(
    recipe: Recipe, variants: Sequence[Variant], progress: Progress, group: Group = ALONE
) -> dict[Variant, RunModel]:
    """One model with a rank's weights for all MoE variants, and the dense twin if it is among them.

    Experts that are behind slots under every variant get no memory of their own.
    """
    progress.stage("weights", len({variant.dense for variant in variants}))
    if isinstance(recipe.model, HuggingFaceSection):
        return load_huggingface(recipe, recipe.model, variants, progress)
    absent = always_buffered(recipe, variants)
    built: dict[bool, Model] = {}
    for dense in dict.fromkeys(variant.dense for variant in variants):
        built[dense] = build_model(recipe, dense=dense, group=group, absent=absent)
        force_routing(built[dense], make_forced_routing(recipe))
        progress.advance()
    return {variant: built[variant.dense] for variant in variants}


def load_huggingface(
    recipe: Recipe, section: HuggingFaceSection, variants: Sequence[Variant], progress: Progress
) -> dict[Variant, RunModel]:
    """The model of a checkpoint folder, and the dense one that was named as its twin."""
    built: dict[bool, RunModel] = {}
    for dense in dict.fromkeys(variant.dense for variant in variants):
        sparse = [variant for variant in variants if not variant.dense]
        built[dense] = build_twin(recipe, section) if dense else build_huggingface(recipe, section, sparse)
        progress.advance()
    return {variant: built[variant.dense] for variant in variants}


@contextmanager
def buffers_for(recipe: Recipe, models: Mapping[Variant, RunModel], group: Group) -> Iterator[Buffers | None]:
    """The slots of the buffered variants for as long as the block runs; None if no variant is buffered."""
    variants = [variant for variant in models if variant.in_slots]
    if not variants:
        yield None
        return
    model = models[variants[0]]
    buffers = (
        buffers_of(model, recipe) if isinstance(model, HuggingFaceModel) else RecipeBuffers(model, recipe, variants, group)
    )
    try:
        if predictor := predictor_of(recipe, variants):
            buffers.forecaster = Forecaster(model, predictor)
        for variant in variants:
            buffers.fit(variant)
        yield buffers
    finally:
        buffers.close()


def predictor_of(recipe: Recipe, variants: Iterable[Variant]) -> ExpertPredictor | None:
    """The predictor that variants ask, of which a run has one; UsageError if its file is not one of the recipe's model."""
    paths = {variant.predictor for variant in variants if variant.predictor}
    assert len(paths) <= 1
    return next((ExpertPredictor.open(Path(path), recipe) for path in paths), None)


def calibrate(models: Mapping[Variant, RunModel]) -> None:
    """Measures the costs that kernels are chosen by now, so that no instrument sees the trials."""
    for variant, model in models.items():
        ours = not variant.dense and variant.dispatch_entry.function
        if ours and not variant.dispatch_entry.padded and variant.kernel == "auto":
            for layer in sparse_layers(model):
                auto.prepare(layer.weights_under(variant), layer.ffn)
