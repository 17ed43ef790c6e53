"""NLLB-MoE's `config.json`, which describes the same encoder-decoder as a recipe: the one from the other."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from moeprof.records.errors import UsageError
from moeprof.records.limits import Positive
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe

TOP_K = 2
"""Experts per token, which no configuration changes."""

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}
LONGEST_SOURCE = 512

Count = Annotated[int, Field(ge=0)]


class NllbConfig(BaseModel):
    """The keys that evaluation depends on, with the defaults of transformers; others are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    model_type: Literal["nllb-moe"] = "nllb-moe"
    vocab_size: Positive = 128112
    d_model: Positive = 1024
    max_position_embeddings: Positive = 1024
    encoder_layers: Positive = 12
    decoder_layers: Positive = 12
    encoder_ffn_dim: Positive = 4096
    decoder_ffn_dim: Positive = 4096
    encoder_attention_heads: Positive = 16
    decoder_attention_heads: Positive = 16
    encoder_sparse_step: Count = 4
    decoder_sparse_step: Count = 4
    num_experts: Positive = 128
    activation_function: str = "relu"
    scale_embedding: bool = True
    tie_word_embeddings: bool = True
    pad_token_id: Annotated[int, Field(ge=-1)] = 1
    bos_token_id: int | None = 0
    eos_token_id: int | list[int] | None = 2
    decoder_start_token_id: int | None = 2
    router_bias: bool = False
    router_dtype: str = "float32"
    router_ignore_padding_tokens: bool = False
    second_expert_policy: str = "all"
    batch_prioritized_routing: bool = False
    normalize_router_prob_before_dropping: bool = False
    moe_eval_capacity_token_fraction: float = 1.0
    moe_token_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    moeprof_tokenizer: Literal["bytes", "words", "hashed", "checkpoint"] = "checkpoint"
    """The tokenizer of the recipe that was exported; only moeprof writes and reads this key."""


def check_supported(config: NllbConfig, where: str) -> None:
    """UsageError that names the first key whose value asks for what moeprof's encoder-decoder does not compute."""
    for complaint in complaints(config):
        raise UsageError(f"{where}: {complaint}", "moeprof runs NLLB-MoE as it was published; give a model without this.")


def complaints(config: NllbConfig) -> Iterator[str]:
    """What is not supported, and why."""
    for key in ("ffn_dim", "attention_heads"):
        encoder, decoder = (getattr(config, f"{stack}_{key}") for stack in ("encoder", "decoder"))
        if encoder != decoder:
            yield f"encoder_{key} {encoder} and decoder_{key} {decoder} differ, which is not supported"
    if config.activation_function not in ACTIVATIONS:
        yield f"activation_function {config.activation_function!r} is not one of {', '.join(ACTIVATIONS)}"
    if config.second_expert_policy != "all":
        yield f"second_expert_policy {config.second_expert_policy!r} draws random numbers in every pass, in evaluation too"
    if config.moe_eval_capacity_token_fraction <= 0:
        yield f"moe_eval_capacity_token_fraction {config.moe_eval_capacity_token_fraction} asks for the capacity of training"
    if config.batch_prioritized_routing and config.moe_eval_capacity_token_fraction < 1:
        yield "batch_prioritized_routing with a capacity below all tokens is not supported"
    if config.router_dtype != "float32":
        yield f"router_dtype {config.router_dtype!r} is not float32"
    for key, usual in (("router_bias", False), ("router_ignore_padding_tokens", False), ("tie_word_embeddings", True)):
        if getattr(config, key) != usual:
            yield f"{key} {str(not usual).lower()} is not supported"


def document_of(config: NllbConfig) -> dict[str, Any]:
    """The sections of a recipe with the model's shape and gating, without its weights; a step of 0 means no MoE layer."""
    encoder_every = config.encoder_sparse_step or config.encoder_layers + 1
    decoder_every = config.decoder_sparse_step or config.decoder_layers + 1
    model = {
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "dim": config.d_model,
        "ffn_dim": config.encoder_ffn_dim,
        "heads": config.encoder_attention_heads,
        "vocab_size": config.vocab_size,
        "experts": config.num_experts,
        "moe_every": encoder_every,
        "decoder_moe_every": None if decoder_every == encoder_every else decoder_every,
        "activation": ACTIVATIONS[config.activation_function],
        "first_position": config.pad_token_id + 1,
        "scale_embedding": config.scale_embedding,
        "expert_output_masking": config.moe_token_dropout,
        "tokenizer": config.moeprof_tokenizer,
    }
    gating = {
        "top_k": TOP_K,
        "capacity_fraction": min(config.moe_eval_capacity_token_fraction, 1.0),
        "normalize_before_dropping": config.normalize_router_prob_before_dropping,
    }
    load = {"batch_size": 1, "sequence_length": min(LONGEST_SOURCE, config.max_position_embeddings), "batches": 2}
    return {"schema": 1, "workload": "mt", "model": model, "gating": gating, "load": load, "measure": {"rounds": 6}}


def config_of(recipe: Recipe, **tokens: int) -> NllbConfig:
    """The configuration of a recipe's model with these ids of special tokens; UsageError if the layout has no such model."""
    for complaint in obstacles(recipe):
        raise UsageError(f"recipe {recipe.name}: {complaint}", "Export a translation model such as mt-tiny.")
    model, gating = recipe.own_model, recipe.gating
    stacks = {
        f"{stack}_{key}": value
        for stack in ("encoder", "decoder")
        for key, value in {"ffn_dim": model.ffn_dim, "attention_heads": model.heads}.items()
    }
    return NllbConfig(
        vocab_size=model.vocab_size,
        d_model=model.dim,
        encoder_layers=model.encoder_layers,
        decoder_layers=model.decoder_layers,
        encoder_sparse_step=model.moe_every,
        decoder_sparse_step=model.decoder_moe_every or model.moe_every,
        num_experts=model.experts,
        activation_function=model.activation,
        scale_embedding=model.scale_embedding,
        pad_token_id=model.first_position - 1,
        normalize_router_prob_before_dropping=gating.normalize_before_dropping,
        moe_eval_capacity_token_fraction=gating.capacity_fraction,
        moe_token_dropout=model.expert_output_masking,
        moeprof_tokenizer=model.tokenizer,
        **stacks,
        **tokens,
    )


def obstacles(recipe: Recipe) -> Iterator[str]:
    """What about a model NLLB-MoE's layout cannot express."""
    if isinstance(recipe.model, HuggingFaceSection):
        yield "a Hugging Face model has its layout already"
    model = recipe.own_model
    if recipe.family_name != "encoder-decoder":
        yield f"NLLB-MoE's layout is for encoder-decoders, and the model is {recipe.family_name}"
    if model.ffn != "mlp" or not model.ffn_bias:
        yield "NLLB-MoE's layout is for FFNs of two matrices with biases"
    if model.positions != "sinusoidal":
        yield f"NLLB-MoE's layout is for sinusoidal positions, and the model has {model.positions}"
    if recipe.gating.top_k != TOP_K:
        yield f"NLLB-MoE's layout is for {TOP_K} experts per token, and gating.top_k is {recipe.gating.top_k}"
