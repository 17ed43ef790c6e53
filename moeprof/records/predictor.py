"""The header of a file with SiDA's predictor, and what `moeprof fit-predictor` finds about the predictor."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from moeprof.records.limits import ExpertCount, NonNegative, Positive
from moeprof.records.name import Name
from moeprof.records.recipe.model import AnyModel, HuggingFaceSection
from moeprof.records.recipe.recipe import Seed
from moeprof.records.recipe.section import Section

SCHEMA = 1

MAX_WIDTH = 2**16

StackName = Literal["encoder", "decoder"]

Share = Annotated[float, Field(ge=0, le=1)]


class FitSettings(Section):
    """How a predictor is trained; the comments name the values of the paper (arXiv 2310.18859) where the defaults differ."""

    tokens: Positive = 20_000
    """Tokens of each text to fit on; a quarter as many are held out."""
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)] | None = None
    """Units of each layer; absent: those of the model, at most 256, which the paper uses for models 768 wide."""
    epochs: Positive = 8
    """How often the text is read."""
    batch_size: Positive = 32
    """Sequences per update; paper: 64, on far more text."""
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-2
    """Learning rate of AdamW at the beginning, from which it falls to 0; paper: 5e-5, on far more text."""
    ce_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight (lambda) of the cross-entropy beside the distillation; paper: 0.005, with which some hundred updates learn less."""
    positions: Positive = 30
    """The experts (T) that the router prefers, whose shares the distillation compares; all if there are fewer."""
    seed: Seed = 0
    """Seed of the initial weights and of the order of sequences."""
    cpu_minutes: Annotated[float, Field(gt=0, le=10_000)] = 10.0
    """Limit on the CPU time of the training, that of the placebo included."""


class StackHeader(Section):
    """A stack of layers, whose experts one network predicts from the stack's own embeddings."""

    causal: bool
    """Whether a token's prediction depends on earlier tokens only."""
    layers: dict[Name, ExpertCount]
    """Its MoE layers in order, and their experts."""


class PredictorHeader(Section):
    """What a predictor is for, and what it was made from."""

    schema_version: int = Field(ge=1, le=SCHEMA)
    moeprof_version: str
    kind: Literal["sida"]
    recipe: Name
    """Name of the recipe whose model it predicts."""
    weights_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Hash of the model's weights."""
    dim: Positive
    """Width D of the embeddings."""
    top_k: Positive
    """Experts per token."""
    width: Annotated[int, Field(ge=1, le=MAX_WIDTH)]
    stacks: dict[StackName, StackHeader]
    text_hashes: dict[Name, str]
    """SHA-256 of the documents of each text that it was fitted on."""
    documents: NonNegative
    """Number of those documents."""
    settings: FitSettings


def stacks_of(model: AnyModel) -> dict[StackName, StackHeader]:
    """The stacks of a model that have MoE layers; a decoder's tokens do not depend on later ones."""
    found: dict[StackName, StackHeader] = {}
    for stack, names, causal in (
        ("encoder", model.encoder_moe_layers, False),
        ("decoder", model.decoder_moe_layers, True),
    ):
        if names:
            found[stack] = StackHeader(causal=causal, layers={name: experts_of(model, name) for name in names})  # type: ignore[index]
    return found


def experts_of(model: AnyModel, layer: str) -> int:
    """The classes of a layer's router: its experts, those without weights included."""
    if isinstance(model, HuggingFaceSection):
        return model.layers[layer].experts + model.layers[layer].zero_experts
    return model.experts


@dataclass(frozen=True)
class HitRate:
    """How well `asked` predicted experts per token contain the K of the router, on held-out documents."""

    stack: str
    layer: str
    """Name of the layer; empty for all layers of all stacks."""
    method: str
    """What predicts: `sida`, or one of those that it is compared with."""
    asked: int
    recall: float
    """Share of the router's choices that were predicted."""
    precision: float
    """Share of the predicted experts that were chosen."""


@dataclass(frozen=True)
class Advantage:
    """Recall of the predictor minus that of another method, at K predicted experts per token, over all layers."""

    method: str
    gain: float
    low: float
    high: float
    """95% interval over documents."""

    @property
    def verdict(self) -> str:
        """Whether the predictor is better, if the interval says so."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "no better"


@dataclass(frozen=True)
class FitReport:
    """What a fitting did and what the predictor can do."""

    file: str
    recipe: str
    top_k: int
    fitted_documents: int
    fitted_tokens: int
    heldout_documents: int
    heldout_tokens: int
    num_parameters: int
    epochs: int
    """Epochs that every network completed."""
    epochs_asked: int
    """More than those if the CPU time ended before."""
    cpu_seconds: float
    """CPU time of the training, without that of the placebo."""
    rates: list[HitRate]
    advantages: list[Advantage]
