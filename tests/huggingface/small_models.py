"""Models of any architecture in transformers, at width 32 with 4 layers and 8 experts of which 2 are used, with seeded random weights."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

SEVEN = ["mixtral", "olmoe", "qwen3_moe", "deepseek_v3", "gpt_oss", "granitemoe", "switch_transformers"]

NUM_LAYERS, NUM_EXPERTS, TOP_K = 4, 8, 2
PAD, BOS, EOS = 0, 1, 2
SPECIAL = ["<pad>", "<s>", "</s>"]
VOCABULARY = 320
"""More ids than the tokenizer's 259, and the least id that a text model may reserve for an image is above them."""

SIZES: list[tuple[float, str]] = [
    (VOCABULARY, "vocab_size text_vocab_size padded_vocab_size"),
    (32, "hidden_size d_model embedding_dim moe_latent_size"),
    (48, "intermediate_size d_ff ffn_dim mlp_hidden_size intermediate_size_mlp"),
    (48, "shared_intermediate_size shared_expert_intermediate_size"),
    (16, "moe_intermediate_size expert_ffn_hidden_size moe_shared_expert_intermediate_size kv_lora_rank q_lora_rank"),
    (8, "head_dim d_kv v_head_dim qk_nope_head_dim qk_rope_head_dim"),
    (4, "num_attention_heads num_heads"),
    (2, "num_key_value_heads n_group encoder_sparse_step num_sparse_encoder_layers num_sparse_decoder_layers"),
    (1, "topk_group first_k_dense_replace num_dense_layers decoder_sparse_step"),
    (512, "max_position_embeddings"),
    (0.1, "initializer_range"),
    (NUM_LAYERS, "num_hidden_layers num_layers num_decoder_layers n_layers"),
    (NUM_EXPERTS, "num_experts num_local_experts n_routed_experts moe_num_experts"),
    (TOP_K, "num_experts_per_tok num_experts_per_token moe_topk moe_k top_k_experts"),
    (PAD, "pad_token_id"),
    (BOS, "bos_token_id"),
    (EOS, "eos_token_id"),
]
OFTEN_OPEN = {"num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok", "moe_topk"}
"""Sizes that some configurations leave open, and a model cannot do without."""
SIZE_OF: dict[str, Any] = {name: size for size, names in SIZES for name in names.split()}


def small_config(architecture: str, **changes: Any) -> PreTrainedConfig:
    """The configuration of `architecture` with every size that its class declares made small, and `changes` on top."""
    kind = transformers.CONFIG_MAPPING[architecture]
    config: PreTrainedConfig = kind(**merged(smaller(kind()), changes))
    return config


def merged(sizes: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """The changes on top of the sizes, in the dictionaries inside too."""
    inner = {
        name: merged(sizes[name], change)
        for name, change in changes.items()
        if isinstance(change, dict) and isinstance(sizes.get(name), dict)
    }
    return sizes | changes | inner


def smaller(config: PreTrainedConfig) -> dict[str, Any]:
    """The arguments that make a configuration small, and those of the configurations inside it."""
    declared = config.to_dict()
    sizes = {name: size for name, size in SIZE_OF.items() if is_set(name, declared)}
    if "num_key_value_heads" in sizes and declared["num_key_value_heads"] == declared.get("num_attention_heads"):
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    inside = {name: getattr(config, name) for name in config.sub_configs}
    return sizes | {name: {"model_type": one.model_type} | smaller(one) for name, one in inside.items() if one is not None}


def is_set(name: str, declared: dict[str, Any]) -> bool:
    """Whether a configuration needs a value of this name."""
    return name in declared and (declared[name] is not None or name in OFTEN_OPEN)


def small_model(architecture: str, *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A model in evaluation mode, float32, whose weights depend on `seed` only."""
    config = small_config(architecture, **changes)
    torch.manual_seed(seed)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = kind.from_config(config, dtype=torch.float32)
    return model.eval()


def saved(folder: Path, model: PreTrainedModel, *, tokenizer: bool = True, **options: Any) -> Path:
    """The folder after `model.save_pretrained(folder, **options)`, with a byte-level tokenizer in it if wanted."""
    model.save_pretrained(folder, **options)
    if tokenizer:
        byte_tokenizer().save_pretrained(folder)
    return folder


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, after three special ones; none is added to a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    pad, bos, eos = SPECIAL
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos)
