"""The section `model` of a recipe: the shape of one of moeprof's own models, or a model of Hugging Face."""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.registry import FFN_FORMS, known_form
from moeprof.records.limits import MAX_LAYERS, MAX_SIZE, ExpertCount, NonNegative, Positive
from moeprof.records.name import Name
from moeprof.records.recipe.family import known_family
from moeprof.records.recipe.section import Section

Width = Annotated[int, Field(ge=1, le=2**20)]
BYTES_PER_ELEMENT = {"float32": 4, "bfloat16": 2, "float16": 2}


class ModelSection(Section):
    """The shape of the model, and where its weights come from."""

    family: Annotated[str, AfterValidator(known_family)] | None = None
    """Architecture: `decoder-only` or `encoder-decoder`; that of the workload when absent."""
    encoder_layers: Annotated[int, Field(ge=0, le=MAX_LAYERS)] = 0
    """Transformer layers of the encoder; 0 for a decoder-only language model."""
    decoder_layers: Annotated[int, Field(ge=1, le=MAX_LAYERS)]
    """Transformer layers of the decoder."""
    dim: Width
    """Width D of a token."""
    ffn_dim: Width
    """Hidden width F of every FFN, dense or expert."""
    heads: Width
    """Attention heads."""
    vocab_size: Annotated[int, Field(ge=260, le=2**24)]
    """Entries of the (shared, tied) embedding; at least the 256 bytes and four special tokens."""
    experts: ExpertCount
    """Experts E of every MoE layer."""
    moe_every: Positive
    """Layer i (from 0) is an MoE layer if i + 1 is a multiple of this."""
    decoder_moe_every: Positive | None = None
    """`moe_every` of the decoder, if it differs from that of the encoder."""
    activation: Literal["gelu", "relu", "silu"]
    """Activation of every FFN; with `ffn = "gated"` that of its gate."""
    ffn: Annotated[str, AfterValidator(known_form)] = "mlp"
    """Form of every FFN, dense or expert: `mlp`, two matrices, or `gated`, three matrices of which one gates another."""
    ffn_bias: bool = True
    """Whether the matrices of an FFN have biases."""
    positions: Literal["sinusoidal", "rotary", "alibi"] = "sinusoidal"
    """Position encoding of attention; none has parameters."""
    first_position: NonNegative = 0
    """Number of the first position of a sequence in the sinusoidal encoding; NLLB begins behind its id of padding."""
    scale_embedding: bool = True
    """Whether token embeddings are multiplied by the square root of dim."""
    expert_output_masking: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of expert outputs masked in training; inference multiplies expert outputs by 1 minus this share, as NLLB does."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Data type of weights and activations; the router is always float32."""
    tokenizer: Literal["bytes", "words", "hashed", "checkpoint"]
    """`bytes`; `words` of the default corpora, others as bytes; `hashed` words in the whole vocabulary; that of a `checkpoint` folder."""
    checkpoint: str | None = None
    """A safetensors file, relative to the recipe; absent or empty: random weights, seeded by [measure] seed."""

    @model_validator(mode="after")
    def heads_divide_dim(self) -> "ModelSection":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not a multiple of heads {self.heads}")
        if self.positions == "rotary" and (self.dim // self.heads) % 2:
            raise ValueError(f"rotary positions need an even width per head, not {self.dim // self.heads}")
        if self.first_position and self.positions != "sinusoidal":
            raise ValueError(f"first_position {self.first_position} needs sinusoidal positions, not {self.positions}")
        return self

    @property
    def encoder_decoder(self) -> bool:
        """Whether the model has an encoder."""
        return self.encoder_layers > 0

    @property
    def encoder_moe_layers(self) -> list[str]:
        """Names of the encoder's MoE layers, `enc.3` and so on."""
        return moe_layers("enc.", self.encoder_layers, self.moe_every)

    @property
    def decoder_moe_layers(self) -> list[str]:
        """Names of the decoder's MoE layers: `dec.3` beside an encoder, `3` without one."""
        prefix = "dec." if self.encoder_decoder else ""
        return moe_layers(prefix, self.decoder_layers, self.decoder_moe_every or self.moe_every)

    def moe_layers_of(self, stack: str) -> list[str]:
        """Names of the MoE layers of the `decoder`, the `encoder`, or `all`."""
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
        """Size of a weight or an activation."""
        return BYTES_PER_ELEMENT[self.dtype]


def stack_of(layer: str) -> str:
    """The stack of a layer by its name: `dec` of `dec.3`."""
    return layer.rpartition(".")[0]


def moe_layers(prefix: str, num_layers: int, every: int) -> list[str]:
    """Names of the MoE layers of a stack: layer i is one if (i + 1) % every == 0, as in fairseq."""
    return [f"{prefix}{index}" for index in range(every - 1, num_layers, every)]


Amount = Annotated[int, Field(ge=0, le=MAX_SIZE)]


class LayerShape(Section):
    """One MoE layer of a Hugging Face model, as its modules say."""

    path: str
    """Path of the experts' module in the model."""
    experts: ExpertCount
    """Experts E with weights."""
    zero_experts: NonNegative = 0
    """Further experts that return their input and have no weights."""
    expert_parameters: Positive
    """Parameters of one expert."""
    expert_bytes: Positive
    """Size of one expert's weights."""
    groups: NonNegative = 0
    """Groups of experts among which the router chooses first; 0 if it has none."""


class HuggingFaceSection(Section):
    """A model that transformers loads. Keys that describe it are filled when the recipe is resolved, and overwritten if given."""

    huggingface: Annotated[str, Field(min_length=1)]
    """A folder with config.json and safetensors files, or the id of a model in the local cache of Hugging Face's hub."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights; `auto`: as the checkpoint says. A resolved recipe names it."""
    experts_backend: Literal["keep", "eager", "grouped_mm", "batched_mm"] = "keep"
    """How transformers computes the experts; `keep`: as the model's configuration says."""
    device_map: Literal["auto"] | None = None
    """`auto`: accelerate distributes the layers over the devices; absent: the whole model on [measure] device."""
    trust_remote_code: bool = False
    """Whether Python code in the checkpoint's folder may run."""
    dense_twin: str | None = None
    """A dense model, named as `huggingface` is, that the same text is run through; it need not compute the same."""
    chat: bool = False
    """Whether text goes through the tokenizer's chat template, as a user's message."""
    keep_tokens: bool = False
    """Whether routing traces keep token ids; otherwise they are -1, so that the text cannot be read from the run directory."""
    architecture: str = ""
    """Name of the model's class."""
    layers: dict[Name, LayerShape] = Field(default_factory=dict)
    """The MoE layers by name: `3`, or `enc.3` and `dec.3` beside an encoder."""
    num_parameters: Amount = 0
    """All parameters, shared ones counted once."""
    token_parameters: Amount = 0
    """Parameters outside the experts that take part in the matrix products of a token."""
    weight_bytes: Amount = 0
    """Size of all parameters and buffers."""
    dim: NonNegative = 0
    """Width D of a token."""
    vocab_size: NonNegative = 0
    """Entries of the output."""
    max_positions: NonNegative = 0
    """Longest sequence that the configuration allows; 0 if it names no limit."""
    weights_hash: str = ""
    """SHA-256 of the configuration and of the headers of the weights."""

    checkpoint: None = None
    """Always absent; a model of moeprof's own has its weights there."""

    @property
    def encoder_decoder(self) -> bool:
        """Whether a layer belongs to an encoder."""
        return any(name.startswith("enc.") for name in self.layers)

    @property
    def encoder_moe_layers(self) -> list[str]:
        """Names of the encoder's MoE layers."""
        return [name for name in self.layers if name.startswith("enc.")]

    @property
    def decoder_moe_layers(self) -> list[str]:
        """Names of all other MoE layers."""
        return [name for name in self.layers if not name.startswith("enc.")]

    def moe_layers_of(self, stack: str) -> list[str]:
        """Names of the MoE layers of the `decoder`, the `encoder`, or `all`."""
        encoder, decoder = self.encoder_moe_layers, self.decoder_moe_layers
        return {"encoder": encoder, "decoder": decoder, "all": [*encoder, *decoder]}[stack]

    @property
    def bytes_per_element(self) -> int:
        """Size of an activation; that of float32 before the recipe is resolved."""
        return BYTES_PER_ELEMENT.get(self.dtype, 4)

    @property
    def experts(self) -> int:
        """The most experts of a layer, those without weights included; 1 before the recipe is resolved."""
        return max((layer.experts + layer.zero_experts for layer in self.layers.values()), default=1)


AnyModel = ModelSection | HuggingFaceSection


def router_groups(model: AnyModel, layers: Iterable[str]) -> int:
    """Groups of neighbouring experts among which the routers of all these layers choose first; 0 if they have none, or differ."""
    shapes = [model.layers[name] for name in layers] if isinstance(model, HuggingFaceSection) else []
    found = {shape.groups for shape in shapes if (shape.experts + shape.zero_experts) % max(shape.groups, 1) == 0}
    return max(found) if len(found) == 1 and max(found) > 1 else 0


MODEL_SECTIONS: dict[str, type[Section]] = {"own": ModelSection, "huggingface": HuggingFaceSection}
"""What the section `model` can be, by the names of `section_of`."""


def section_of(model: object) -> str:
    """Which section a value of the key `model` is: that of a Hugging Face model, or of one of moeprof's own."""
    given = model if isinstance(model, dict) else vars(model) if isinstance(model, BaseModel) else {}
    return "huggingface" if "huggingface" in given else "own"
