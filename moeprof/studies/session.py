"""What every pass of a study works with: the models ready to run, the run being written, the clock."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from moeprof.analysis.model_size import always_buffered
from moeprof.instrument.clock import Clock
from moeprof.instrument.machine import environment
from moeprof.instrument.memory import MemoryTracker
from moeprof.models.buffers import Buffers
from moeprof.models.build import Model, build_model
from moeprof.moe.forced import make_forced_routing
from moeprof.moe.kernels.auto import auto
from moeprof.moe.layer import force_routing, moe_layers, static_tensors, use_variant
from moeprof.parallel.collectives import barrier
from moeprof.parallel.group import ALONE, Group
from moeprof.records.placement import Placement
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant
from moeprof.records.recipe.weights import weights_hash
from moeprof.records.run.run import RunRecord
from moeprof.records.run.writer import RunWriter
from moeprof.studies.progress import Progress
from moeprof.workloads.episodes import DecodeEpisode, Episode
from moeprof.workloads.registry import Workload

FEW_STEPS = 4
"""Of decoding; more make a timeline that nobody scrolls through, and no new peak of memory: caches are laid out at the start."""


@dataclass(frozen=True, eq=False)
class Session:
    """One recipe being run; a contender is a variant and the model that it runs on."""

    recipe: Recipe
    writer: RunWriter
    clock: Clock
    progress: Progress
    contenders: dict[Variant, Model]
    """In the order of the report. Variants of the MoE model share one: `use` it before it runs."""
    against: Sequence[str] = ()
    """Labels of the contenders that speed-ups are told against."""
    unequal: set[tuple[str, Variant]] = field(default_factory=set)
    """Phases in which a contender's outputs are not the baseline's."""
    doubts: list[str] = field(default_factory=list)
    """Why the run should not be believed."""
    group: Group = ALONE
    """This rank among those of the run; all of them go through the same passes."""
    buffers: Buffers | None = None
    """The slots of the buffered contenders, where there are any."""
    placements: dict[Variant, Placement] = field(default_factory=dict)
    """Where experts lie in the phase at hand, of contenders that place them."""

    def untold(self, phase: str) -> list[str]:
        """Labels of contenders whose speed-ups nobody may tell in a phase: they compute something else."""
        return [variant.label for unequal_phase, variant in self.unequal if unequal_phase == phase]

    def judged(self, episodes: Sequence[Episode]) -> Sequence[Episode]:
        """What contenders are compared on: where one of them places experts, the batches that its placement has not seen."""
        return later_half(episodes) if any(variant.placed for variant in self.contenders) else episodes

    @property
    def baseline(self) -> Variant:
        """The first contender that has experts: all others decode its tokens, and their outputs are held against its own."""
        return next(variant for variant in self.contenders if not variant.dense)

    def use(self, variant: Variant) -> Model:
        """The contender's model, from now on executed as `variant` says."""
        model = self.contenders[variant]
        use_variant(model, variant)
        return model

    def tracker(self, variant: Variant, limit_bytes: int | None = None) -> MemoryTracker:
        """Of what a contender needs: another one's experts, or slots, do not count."""
        model = self.contenders[variant]
        return MemoryTracker(model, self.clock, limit_bytes, static_tensors(model, variant))

    def use_label(self, label: str) -> Model:
        """The same, by the variant's label."""
        return self.use(next(variant for variant in self.contenders if variant.label == label))

    def select_and_sync(self, label: str) -> None:
        """The same, and then waits for the other ranks: before a round, so that none of them is ahead."""
        self.use_label(label)
        barrier(self.group)


def load_models(recipe: Recipe, variants: Sequence[Variant], progress: Progress, group: Group = ALONE) -> dict[Variant, Model]:
    """One model with a rank's weights for all MoE variants, and the dense twin where it is among them.

    Experts that are behind slots under every variant have no memory but these.
    """
    progress.stage("weights", len({variant.dense for variant in variants}))
    absent = always_buffered(recipe, variants)
    built: dict[bool, Model] = {}
    for dense in dict.fromkeys(variant.dense for variant in variants):
        built[dense] = build_model(recipe, dense=dense, group=group, absent=absent)
        force_routing(built[dense], make_forced_routing(recipe))
        progress.advance()
    return {variant: built[variant.dense] for variant in variants}


@contextmanager
def buffers_for(recipe: Recipe, contenders: Mapping[Variant, Model], group: Group) -> Iterator[Buffers | None]:
    """The slots of the buffered variants among them, for as long as the block runs; None where there are none."""
    variants = [variant for variant in contenders if variant.store == "buffered"]
    if not variants:
        yield None
        return
    buffers = Buffers(contenders[variants[0]], recipe, variants, group)
    for variant in variants:
        buffers.fit(variant)
    try:
        yield buffers
    finally:
        buffers.close()


def calibrate(contenders: Mapping[Variant, Model]) -> None:
    """Kernels that choose by measured costs measure them now, so that no instrument sees the trials."""
    for variant, model in contenders.items():
        if not variant.dense and not variant.dispatch_entry.padded and variant.kernel == "auto":
            for layer in moe_layers(model):
                auto.prepare(layer.weights_under(variant), layer.ffn)


def first_of_each_domain(episodes: Sequence[Episode]) -> list[Episode]:
    """What is timed: one batch of every domain."""
    first = {episode.domain: episode for episode in reversed(episodes)}
    return list(reversed(first.values()))


def later_half(episodes: Sequence[Episode]) -> list[Episode]:
    """Of every domain, the odd batch and a single one included (paper 6.4)."""
    domains = [episode.domain for episode in episodes]
    before = [domains[:number].count(domain) for number, domain in enumerate(domains)]
    return [episode for episode, number in zip(episodes, before, strict=True) if number >= domains.count(episode.domain) // 2]


def first_steps(episodes: Sequence[Episode]) -> dict[str, int]:
    """The number of each domain's first step."""
    return {episode.domain: episode.steps[0].index for episode in first_of_each_domain(episodes)}


def beginning(episode: Episode) -> Episode:
    """The first steps of an episode that decodes, the whole of any other: enough where every further step is like them."""
    if isinstance(episode, DecodeEpisode):
        return replace(episode, tokens_NB=episode.tokens_NB[:FEW_STEPS], steps=episode.steps[:FEW_STEPS])
    return episode


def new_record(command: str, recipe: Recipe, variants: Sequence[Variant], workload: Workload, argv: Sequence[str]) -> RunRecord:
    """What is known before anything ran."""
    return RunRecord(
        command=command,
        argv=list(argv),
        recipe=recipe,
        variants=[{"label": variant.label, **asdict(variant)} for variant in variants],
        environment=environment(recipe.measure.device),
        text_hashes=workload.text_hashes,
        weights_hash=weights_hash(recipe),
    )
