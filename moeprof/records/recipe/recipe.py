"""A recipe: everything that decides what a run does, as validated sections of a TOML file."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from moeprof.records.limits import MAX_COUNT, MAX_RANKS, NonNegative, Positive, RoundCount, Size, StepCount
from moeprof.records.name import Name
from moeprof.records.recipe.family import FAMILIES, Family, default_family
from moeprof.records.recipe.model import HuggingFaceSection, ModelSection, section_of
from moeprof.records.recipe.routing_source import parse_routing_source
from moeprof.records.recipe.section import Section
from moeprof.records.recipe.variant import Variant
from moeprof.records.units import parse_bytes

SCHEMA = 1

Seed = Annotated[int, Field(ge=0, lt=2**63)]
MemorySize = Annotated[Size, BeforeValidator(lambda size: parse_bytes(size) if isinstance(size, str) else size)]
Phase = Literal["score", "encode", "decode"]

PHASES: dict[str, tuple[Phase, ...]] = {"lm": ("score", "decode"), "mt": ("encode", "decode")}
"""The phases of each workload, in the order in which they are reported."""

DOCUMENTATION = "documentation"
"""The domain of train.documentation."""


class GatingSection(Section):
    """The router and its capacity."""

    top_k: Positive = 2
    """Experts per token."""
    capacity_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """C: with static gating an expert accepts ceil(C * S) of a batch's S tokens (fairseq's moe_eval_capacity_token_fraction)."""
    normalize_before_dropping: bool = False
    """Whether the weights of a token sum to 1 before choices over the capacity are dropped, or over the choices that are left."""
    padding: Literal["longest", "fixed"] = "longest"
    """Pad a batch to its longest sequence, or to the fixed [load] sequence_length; S includes the padding."""


class DataSection(Section):
    """The text: the default corpora of the workload, unless files are given."""

    domains: list[Name] | None = None
    """Default domains (LM) or target languages (MT) to use; all when absent."""
    files: dict[Name, str | list[str]] = Field(default_factory=dict)
    """NAME = path (LM: .txt, .jsonl, .gz, .zst or a folder; MT: .jsonl with `translation`), or for MT [source, target], line-aligned."""
    max_tokens: Positive | None = None
    """Maximum number of tokens to read of each domain."""
    fill: bool = False
    """MT: join consecutive sentences to sources of exactly [load] sequence_length tokens, so that there is no padding."""
    too_long: Literal["split", "refuse"] = "split"
    """MT: split sources longer than [load] sequence_length at sentence or word boundaries, or refuse the text."""


class LoadSection(Section):
    """The amount of work in a step."""

    batch_size: Positive
    """Sequences per batch."""
    sequence_length: Annotated[int, Field(ge=2, le=MAX_COUNT)]
    """Tokens per sequence (LM), or the longest source sentence (MT)."""
    batches: Annotated[RoundCount, Field(ge=1)] = 8
    """Batches of each domain whose routing is recorded."""
    decode_steps: StepCount = 32
    """Tokens to generate per sequence in the phase `decode`."""
    prompt_length: Positive = 16
    """Tokens of the prompt after which the LM generates."""
    phases: list[Phase] | None = None
    """Phases to run, in order; all phases of the workload when absent."""


class ParallelSection(Section):
    """Expert parallelism over several processes."""

    ranks: Annotated[int, Field(ge=1, le=MAX_RANKS)] = 1
    """Number of processes that share the experts."""
    timeout_s: Annotated[float, Field(gt=0, le=1e6)] = 300.0
    """Timeout of a collective operation, after which the run fails."""


class RoutingSection(Section):
    """The source of routing decisions."""

    source: str = "model"
    """`model`, or forced decisions: `uniform[:sticky=P][,seed=N]`, `zipf:S[,sorted][,sticky=P][,seed=N]`, `trace:PATH`."""

    @model_validator(mode="after")
    def source_is_known(self) -> "RoutingSection":
        parse_routing_source(self.source)
        return self


class MeasureSection(Section):
    """Settings of the measurement."""

    warmup: RoundCount = 3
    """Untimed rounds before the timed ones."""
    rounds: Annotated[RoundCount, Field(ge=1)] = 10
    """Number of timed rounds."""
    seed: Seed = 0
    """Seed of random weights and of the order of batches."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Device that runs the model."""


class BudgetSection(Section):
    """Limits on what a run may use."""

    memory: MemorySize | None = None
    """Memory of one device, in bytes or as a size such as `1.5GiB`; the device's actual memory when absent."""


class TrainSection(Section):
    """Settings of `moeprof train`, which makes the recipe's checkpoint."""

    steps: StepCount = 2000
    """Number of updates of the weights."""
    batch_size: Positive = 16
    """Sequences (LM) or sentence pairs (MT) per update, with all domains mixed."""
    sequence_length: Annotated[int, Field(ge=2, le=MAX_COUNT)] = 256
    """LM: tokens of a sequence, including BOS. MT: length of the longest source or target to train on."""
    corpus_size: Positive = 1_000_000
    """Characters (LM) or sentence pairs (MT) per domain; an upper limit for files."""
    documentation: str | None = None
    """LM: a release on the package index, `name==version`, whose documentation is an additional domain of the training."""
    documentation_share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Share of sequences from that documentation; the other domains are equally likely."""
    documentation_steps: Positive | None = None
    """Steps after which its share is documentation_later_share; all steps when absent."""
    documentation_later_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of sequences from that documentation after documentation_steps."""
    documentation_noise: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of that documentation's input tokens that are replaced by others of it, against reliance on what was seen word for word."""
    documentation_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of that documentation's targets that are replaced by others of it, against overconfidence on other text."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon for the matrices of attention, FFNs and experts, AdamW for the rest; `adamw`: AdamW for all."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Learning rate of AdamW (a tenth of Muon's) at the end of the warm-up; it then decreases along half a cosine."""
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Learning rate in the last step, as a share of learning_rate."""
    warmup_steps: NonNegative = 60
    """Steps of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay of AdamW for matrices; norms and biases have none."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Maximum norm of the gradient, above which it is scaled down."""
    balance_weight: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the load-balancing loss, summed over MoE layers (Switch, GShard)."""
    z_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Weight of the router's z-loss, summed over MoE layers (ST-MoE)."""
    evaluate_every: Positive = 250
    """Steps between two evaluations on held-out text."""
    heldout_sequences: Positive = 32
    """Sequences or sentence pairs per domain in such an evaluation."""
    threads: Positive = 1
    """Threads of torch; the weights depend on it, because it changes the order of sums."""
    cpu_minutes: Annotated[float, Field(gt=0, le=45)] = 45.0
    """Limit on CPU time; interrupted and resumed training counts as a whole."""
    seed: Seed = 0
    """Seed of the order of the text; [measure] seed is that of the initial weights."""


class Recipe(Section):
    """One workload on one model; every run keeps the resolved recipe."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    """Version of this format."""
    name: Name = "recipe"
    """Name of the recipe; the file's name when absent."""
    workload: Literal["lm", "mt"]
    """`lm`: language modelling; `mt`: machine translation."""
    description: str = ""
    """Description in one line, for `moeprof recipes list`."""
    model: Annotated[
        Annotated[ModelSection, Tag("own")] | Annotated[HuggingFaceSection, Tag("huggingface")], Discriminator(section_of)
    ]
    """The shape of one of moeprof's own models, or a Hugging Face model, which the key `huggingface` names."""
    gating: GatingSection = GatingSection()
    data: DataSection = DataSection()
    load: LoadSection
    parallel: ParallelSection = ParallelSection()
    routing: RoutingSection = RoutingSection()
    measure: MeasureSection = MeasureSection()
    budget: BudgetSection = BudgetSection()
    train: TrainSection = TrainSection()

    @model_validator(mode="after")
    def sections_agree(self) -> "Recipe":
        """Checks that sections agree with each other."""
        if isinstance(self.model, ModelSection):
            self.check_shape(self.model)
        elif self.parallel.ranks > 1 or self.forced:
            what = "parallel.ranks above 1" if self.parallel.ranks > 1 else f"routing.source {self.routing.source!r}"
            raise ValueError(f"{what}: a Hugging Face model runs on one rank, with its own routing")
        load = self.load
        if not self.phases or len(set(self.phases)) < len(self.phases):
            raise ValueError(f"load.phases must name at least one phase, each once: {', '.join(PHASES[self.workload])}")
        if foreign := [phase for phase in self.phases if phase not in PHASES[self.workload]]:
            raise ValueError(f"load.phases has {foreign[0]!r}; {self.workload} has {', '.join(PHASES[self.workload])}")
        if self.train.documentation and (self.workload != "lm" or DOCUMENTATION in self.data.files):
            raise ValueError(f"train.documentation is text for workload 'lm', beside which no file is named {DOCUMENTATION!r}")
        if self.workload == "lm" and "decode" in self.phases and load.prompt_length > load.sequence_length:
            raise ValueError(
                f"load.prompt_length {load.prompt_length} is longer than load.sequence_length {load.sequence_length}"
            )
        return self

    def check_shape(self, model: ModelSection) -> None:
        """ValueError if the shape of a model of moeprof's own does not fit the other sections."""
        if self.family.workload != self.workload:
            raise ValueError(f"model.family {model.family!r} runs workload {self.family.workload!r}, not {self.workload!r}")
        if model.encoder_decoder != self.family.encoder:
            needed = "at least 1" if self.family.encoder else "0"
            raise ValueError(f"model.encoder_layers must be {needed} for workload {self.workload!r}")
        if self.gating.top_k > model.experts:
            raise ValueError(f"gating.top_k is {self.gating.top_k}, but model.experts is {model.experts}")
        if model.experts % self.parallel.ranks:
            raise ValueError(f"model.experts {model.experts} is not a multiple of parallel.ranks {self.parallel.ranks}")
        if not (model.encoder_moe_layers or model.decoder_moe_layers):
            raise ValueError(f"model.moe_every {model.moe_every} leaves no MoE layer")

    @property
    def own_model(self) -> ModelSection:
        """The shape of a model of moeprof's own, which this recipe must have."""
        assert isinstance(self.model, ModelSection), "a Hugging Face model has no such shape"
        return self.model

    @property
    def family_name(self) -> str:
        """The name of the model's architecture."""
        return self.own_model.family or default_family(self.workload)

    @property
    def family(self) -> Family:
        """The entry of the model's architecture."""
        return FAMILIES[self.family_name]

    @property
    def unset_later_keys(self) -> dict[str, set[str]]:
        """Keys of each section that came after the first recipes of schema 1 and have their default.

        Hashes and settings omit them, so that those of older runs still agree.
        """
        defaults: dict[str, dict[str, Any]] = {
            "model": {
                "ffn": "mlp",
                "ffn_bias": True,
                "family": default_family(self.workload),
                "decoder_moe_every": None,
                "first_position": 0,
                "scale_embedding": True,
            },
            "gating": {"normalize_before_dropping": False},
            "data": {"too_long": "split"},
        }
        return {
            section: {key for key, default in keys.items() if vars(getattr(self, section)).get(key, ...) in (None, default)}
            for section, keys in defaults.items()
        }

    @property
    def phases(self) -> list[Phase]:
        """The phases of this run, in order."""
        return list(PHASES[self.workload]) if self.load.phases is None else self.load.phases

    @property
    def forced(self) -> bool:
        """Whether routing decisions are forced; metrics that depend on them are labelled `forced`."""
        return self.routing.source != "model"

    def buffered_layers(self, variant: Variant) -> list[str]:
        """The MoE layers whose experts are buffered under a variant."""
        return self.model.moe_layers_of(variant.buffered) if variant.in_slots else []

    def moe_layers(self, phase: str) -> list[str]:
        """The MoE layers that tokens pass in `phase`."""
        return self.model.encoder_moe_layers if phase == "encode" else self.model.decoder_moe_layers
