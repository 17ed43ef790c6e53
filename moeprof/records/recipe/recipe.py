"""A recipe: everything that decides what a run does, as validated sections of a TOML file."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.registry import FFN_FORMS, known_form
from moeprof.records.recipe.family import FAMILIES, Family, default_family, known_family
from moeprof.records.recipe.routing_source import parse_routing_source
from moeprof.records.recipe.variant import Variant
from moeprof.records.units import parse_bytes

SCHEMA = 1

Positive = Annotated[int, Field(ge=1)]
NonNegative = Annotated[int, Field(ge=0)]
MemorySize = Annotated[int, Field(ge=1), BeforeValidator(lambda size: parse_bytes(size) if isinstance(size, str) else size)]
Phase = Literal["score", "encode", "decode"]

PHASES: dict[str, tuple[Phase, ...]] = {"lm": ("score", "decode"), "mt": ("encode", "decode")}
"""The phases of each workload, in the order in which they are reported."""

BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


class Section(BaseModel):
    """Unknown keys and wrong types are errors; the line under each key is its documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, use_attribute_docstrings=True)


class ModelSection(Section):
    """The shape of the model, and where its weights come from."""

    family: Annotated[str, AfterValidator(known_family)] | None = None
    """Architecture: `decoder-only` or `encoder-decoder`; that of the workload when absent."""
    encoder_layers: NonNegative = 0
    """Transformer layers of the encoder; 0 for a decoder-only language model."""
    decoder_layers: Positive
    """Transformer layers of the decoder."""
    dim: Positive
    """Width D of a token."""
    ffn_dim: Positive
    """Hidden width F of every FFN, dense or expert."""
    heads: Positive
    """Attention heads."""
    vocab_size: Annotated[int, Field(ge=260)]
    """Entries of the (shared, tied) embedding; at least the 256 bytes and four special tokens."""
    experts: Positive
    """Experts E of every MoE layer."""
    moe_every: Positive
    """Layer i (from 0) is an MoE layer where (i + 1) is a multiple of this."""
    activation: Literal["gelu", "relu", "silu"]
    """Activation of every FFN; with `ffn = "gated"` that of its gate."""
    ffn: Annotated[str, AfterValidator(known_form)] = "mlp"
    """Form of every FFN, dense or expert: `mlp`, two matrices, or `gated`, three matrices of which one gates another."""
    ffn_bias: bool = True
    """Whether the matrices of an FFN have biases."""
    positions: Literal["sinusoidal", "rotary", "alibi"] = "sinusoidal"
    """How attention knows positions; none of them has parameters."""
    expert_output_masking: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of expert outputs masked in training; inference multiplies expert outputs by the rest, as NLLB does."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of weights and activations; the router is always float32."""
    tokenizer: Literal["bytes", "words", "hashed"]
    """`bytes`; `words` of the default corpora with a fallback to bytes; words `hashed` into the whole vocabulary."""
    checkpoint: str | None = None
    """A safetensors file, relative to the recipe; absent or empty: random weights, seeded by [measure] seed."""

    @model_validator(mode="after")
    def heads_divide_dim(self) -> "ModelSection":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and (self.dim // self.heads) % 2:
            raise ValueError(f"rotary positions need an even width per head, not {self.dim // self.heads}")
        return self

    @property
    def encoder_decoder(self) -> bool:
        """Whether the model has an encoder."""
        return self.encoder_layers > 0

    def is_moe(self, index: int) -> bool:
        """Whether layer `index` of either stack is an MoE layer (fairseq: (i + 1) % moe_every == 0)."""
        return (index + 1) % self.moe_every == 0

    @property
    def encoder_moe_layers(self) -> list[str]:
        """Names of the encoder's MoE layers, `enc.3` and so on."""
        return [f"enc.{index}" for index in range(self.encoder_layers) if self.is_moe(index)]

    @property
    def decoder_moe_layers(self) -> list[str]:
        """Names of the decoder's MoE layers: `dec.3` beside an encoder, `3` without one."""
        prefix = "dec." if self.encoder_decoder else ""
        return [f"{prefix}{index}" for index in range(self.decoder_layers) if self.is_moe(index)]

    def moe_layers_of(self, stack: str) -> list[str]:
        """Of the `decoder`, the `encoder`, or `all`."""
        encoder, decoder = self.encoder_moe_layers, self.decoder_moe_layers
        return {"encoder": encoder, "decoder": decoder, "all": [*encoder, *decoder]}[stack]

    @property
    def ffn_form(self) -> FFNForm:
        """The form of every FFN, dense or expert."""
        return FFN_FORMS[self.ffn]

    @property
    def ffn_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors of one FFN, by name."""
        return self.ffn_form.shapes(self.dim, self.ffn_dim, bias=self.ffn_bias)

    @property
    def bytes_per_element(self) -> int:
        """Of a weight or an activation."""
        return BYTES_PER_ELEMENT[self.dtype]


class GatingSection(Section):
    """The router and its capacity."""

    top_k: Positive = 2
    """Experts per token."""
    capacity_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """C: under static gating an expert takes ceil(C * S) of a batch's S tokens (fairseq's moe_eval_capacity_token_fraction)."""
    padding: Literal["longest", "fixed"] = "longest"
    """A batch is padded to its longest sequence, or to the fixed [load] sequence_length; S counts the padding."""


class DataSection(Section):
    """The text: the default corpora of the workload, unless files are named."""

    domains: list[str] | None = None
    """Which of the default domains (LM) or target languages (MT); all of them when absent."""
    files: dict[str, str | list[str]] = {}
    """NAME = path (LM: .txt, .jsonl, .gz, a folder; MT: .jsonl with `translation`) or, MT, [source, target] line by line."""
    max_tokens: Positive | None = None
    """Read at most this many tokens of every domain."""
    fill: bool = False
    """MT: consecutive sentences are joined until each source has [load] sequence_length tokens, so that nothing is padded."""


class LoadSection(Section):
    """How much work a step holds."""

    batch_size: Positive
    """Sequences per batch."""
    sequence_length: Annotated[int, Field(ge=2)]
    """Tokens per sequence (LM), or the longest source sentence (MT)."""
    batches: Positive = 8
    """Batches of every domain whose routing is recorded."""
    decode_steps: Positive = 32
    """Tokens generated per sequence in the phase `decode`."""
    prompt_length: Positive = 16
    """Tokens of a sequence that the LM reads before it generates."""
    phases: list[Phase] | None = None
    """Phases to run, in order; all of the workload's when absent."""


class ParallelSection(Section):
    """Expert parallelism over several processes."""

    ranks: Positive = 1
    """Processes over which experts are spread."""
    timeout_s: Annotated[float, Field(gt=0)] = 300.0
    """A collective that hangs longer ends the run."""


class RoutingSection(Section):
    """Who decides where tokens go."""

    source: str = "model"
    """`model`, or forced decisions: `uniform[:sticky=P][,seed=N]`, `zipf:S[,sorted][,sticky=P][,seed=N]`, `trace:PATH`."""

    @model_validator(mode="after")
    def source_is_known(self) -> "RoutingSection":
        parse_routing_source(self.source)
        return self


class MeasureSection(Section):
    """How the run is measured."""

    warmup: NonNegative = 3
    """Untimed rounds first."""
    rounds: Positive = 10
    """Timed rounds."""
    seed: NonNegative = 0
    """Of random weights and of batch order."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the model runs."""


class BudgetSection(Section):
    """What the machine is allowed to give."""

    memory: MemorySize | None = None
    """Bytes of one device, or a size such as `1.5GiB`; the device's own memory when absent."""


class TrainSection(Section):
    """How `moeprof train` makes the recipe's checkpoint."""

    steps: Positive = 2000
    """Updates of the weights."""
    batch_size: Positive = 16
    """Sequences (LM) or sentence pairs (MT) of an update, all domains mixed."""
    sequence_length: Annotated[int, Field(ge=2)] = 256
    """LM: tokens of a sequence, BOS included. MT: the longest source or target that is learned from."""
    corpus_size: Positive = 1_000_000
    """Characters (LM) or sentence pairs (MT) of every domain of the default text; of files at most so many are read."""
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    """Of AdamW, at the end of the warm-up; then it falls along half a cosine."""
    final_learning_rate: Annotated[float, Field(ge=0, le=1)] = 0.05
    """What is left of the learning rate in the last step, as a share."""
    warmup_steps: NonNegative = 60
    """Steps over which the learning rate rises linearly."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Of AdamW, on matrices; norms and biases have none."""
    clip_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients longer than this together are shortened to it."""
    balance_weight: Annotated[float, Field(ge=0)] = 0.01
    """Of the load-balancing loss, summed over MoE layers (Switch, GShard)."""
    z_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Of the router's z-loss, summed over MoE layers (ST-MoE)."""
    evaluate_every: Positive = 250
    """Steps between two points of the held-out curve."""
    heldout_sequences: Positive = 32
    """Sequences or sentence pairs of every domain in a point of that curve."""
    threads: Positive = 1
    """Of torch; weights depend on it, since sums are then taken in another order."""
    cpu_minutes: Annotated[float, Field(gt=0, le=45)] = 45.0
    """Training stops when the process has used so much CPU time, all sessions of an interrupted training together."""
    seed: NonNegative = 0
    """Of the order of the text; the first weights come from [measure] seed."""


class Recipe(Section):
    """One workload on one model; every run keeps the resolved recipe."""

    schema_version: Annotated[Literal[1], Field(alias="schema")] = 1
    """Version of this format."""
    name: str = ""
    """Taken from the file's name."""
    workload: Literal["lm", "mt"]
    """`lm`: language modelling with a decoder-only model; `mt`: machine translation with an encoder-decoder."""
    description: str = ""
    """One line for `moeprof recipes list`."""
    model: ModelSection
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
        """Checks what no section can see alone."""
        model, load = self.model, self.load
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
        if foreign := [phase for phase in self.phases if phase not in PHASES[self.workload]]:
            raise ValueError(f"load.phases has {foreign[0]!r}; {self.workload} has {', '.join(PHASES[self.workload])}")
        if self.workload == "lm" and "decode" in self.phases and load.prompt_length > load.sequence_length:
            raise ValueError(
                f"load.prompt_length {load.prompt_length} is longer than load.sequence_length {load.sequence_length}"
            )
        return self

    @property
    def family_name(self) -> str:
        """The name of the model's architecture."""
        return self.model.family or default_family(self.workload)

    @property
    def family(self) -> Family:
        """The entry of the model's architecture."""
        return FAMILIES[self.family_name]

    @property
    def unset_later_keys(self) -> set[str]:
        """Keys of [model] that came after the first recipes of schema 1 and have their default.

        Hashes and settings omit them, so that those of older runs still agree.
        """
        defaults = {"ffn": "mlp", "ffn_bias": True, "family": default_family(self.workload)}
        return {key for key, default in defaults.items() if getattr(self.model, key) in (None, default)}

    @property
    def phases(self) -> list[Phase]:
        """The phases this run has, in order."""
        return list(PHASES[self.workload]) if self.load.phases is None else self.load.phases

    @property
    def forced(self) -> bool:
        """Whether decisions are put in the routers' place; what depends on them is labelled `forced`."""
        return self.routing.source != "model"

    def buffered_layers(self, variant: Variant) -> list[str]:
        """The MoE layers whose experts share slots under a variant."""
        return self.model.moe_layers_of(variant.buffered) if variant.store == "buffered" else []

    def moe_layers(self, phase: str) -> list[str]:
        """The MoE layers that tokens of `phase` pass."""
        return self.model.encoder_moe_layers if phase == "encode" else self.model.decoder_moe_layers
