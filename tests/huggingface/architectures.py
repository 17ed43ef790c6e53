"""Architectures of the installed transformers, made small: those whose experts are decorated are found by reading its source."""

import ast
import importlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import torch
import transformers
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSeq2SeqLM,
    PreTrainedConfig,
    PreTrainedModel,
)

from tests.huggingface.small_models import NUM_EXPERTS, TOP_K, small_config

MAX_PARAMETERS = 10_000_000
DECORATOR = "use_experts_implementation"
AUTO = (AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForImageTextToText, AutoModel)
MODELS = Path(transformers.__file__).parent / "models"


class Recipe(NamedTuple):
    """How to make a small model of an architecture, where the generic sizes alone do not."""

    changes: Mapping[str, Any] = MappingProxyType({})
    config: str = ""
    """The type of the configuration, if it is not the name of the architecture: that of the text model in a composite one."""
    model: str = ""
    """The class, if no auto class builds it."""


SPARSE = {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}
GEMMA = {
    "enable_moe_block": True,
    "num_experts": NUM_EXPERTS,
    "top_k_experts": TOP_K,
    "moe_intermediate_size": 16,
    "per_layer_config": {},
    "layer_types": ["sliding_attention"] * 3 + ["full_attention"],
}
ROPE = {"rope_theta": 10_000.0, "rope_type": "default"}
INDEXER = {"index_n_heads": 4, "index_head_dim": 16}

RECIPES = {
    "bailing_hybrid": Recipe({"n_group": 2, "topk_group": 1}),
    "dbrx": Recipe(
        {
            "n_heads": 4,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10_000.0, "clip_qkv": 8.0},
            "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": NUM_EXPERTS, "moe_top_k": TOP_K},
        }
    ),
    "deepseek_ocr2": Recipe(SPARSE, "deepseek_ocr2_text", "DeepseekOcr2TextModel"),
    "diffusion_gemma": Recipe(GEMMA, "diffusion_gemma_text", "DiffusionGemmaEncoderTextModel"),
    "dots1": Recipe({"n_shared_experts": 1}),
    "dots3_note": Recipe({"per_layer_config": {}, "head_dim": 16, **INDEXER}, "dots3_note_text", "Dots3NoteForCausalLM"),
    "ernie4_5_vl_moe": Recipe(
        {"moe_intermediate_size": [16, 24], "rope_parameters": {**ROPE, "mrope_section": [1, 1, 2]}},
        "ernie4_5_vl_moe_text",
        "Ernie4_5_VLMoeTextModel",
    ),
    "gemma4": Recipe({**GEMMA, "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8}, "gemma4_text"),
    "glm4v_moe": Recipe(
        {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5, "mrope_section": [1, 1, 0]}},
        "glm4v_moe_text",
        "Glm4vMoeTextModel",
    ),
    "glm5_next": Recipe(
        {"qk_rope_head_dim": 0, "head_dim": 0, "linear_head_dim": 8, "linear_num_heads": 4, **INDEXER},
        "glm5_next_text",
        "Glm5NextTextModel",
    ),
    "granitemoehybrid": Recipe({"mamba_n_heads": 8}),
    "hy_v4_vl": Recipe({"rope_parameters": {**ROPE, "mrope_section": [2, 1, 1]}}, "hy_v4_vl_text", "HYV4VLTextModel"),
    "hunyuan_v1_moe": Recipe({"head_dim": 8}),
    "inkling": Recipe(
        {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8}, "inkling_text", "InklingTextModel"
    ),
    "inkling2": Recipe({}, "inkling2_text"),
    "inkling2_loop": Recipe({}, "inkling2_loop_text"),
    "jetmoe": Recipe({"kv_channels": 8}),
    "lfm2_moe": Recipe({"layer_types": ["conv", "full_attention"] * 2}),
    "llama4": Recipe({}, "llama4_text"),
    "longcat_flash": Recipe({"num_layers": 2, "zero_expert_num": 4}),
    "mistral4": Recipe({"head_dim": 16}, "", "Mistral4Model"),
    "muse_spark": Recipe({}, "muse_spark_text", "MuseSparkTextModel"),
    "qwen3_5_moe": Recipe({}, "qwen3_5_moe_text"),
    "qwen3_omni_moe": Recipe({}, "qwen3_omni_moe_text", "Qwen3OmniMoeThinkerTextModel"),
    "qwen4_exp": Recipe(
        {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8, "indexer_compress_ratio": 4},
        "qwen4_exp_text",
        "Qwen4ExpTextModel",
    ),
    "step3p7": Recipe({"text_config": {"sliding_window": 8, **SPARSE}}),
    "zaya": Recipe({"num_experts_per_tok": 1}),
}


@cache
def decorated_architectures() -> dict[str, set[str]]:
    """The folders of `transformers/models` with decorated classes of experts, and the names of these classes."""
    found = {path.parent.name: decorated_classes(path) for path in sorted(MODELS.glob("*/modeling_*.py"))}
    return {architecture: classes for architecture, classes in found.items() if classes}


def decorated_classes(path: Path) -> set[str]:
    """The names of the classes in a file that have the decorator."""
    source = path.read_text()
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)] if DECORATOR in source else []
    return {node.name for node in classes if any(DECORATOR in ast.unparse(decorator) for decorator in node.decorator_list)}


def build(architecture: str) -> PreTrainedModel:
    """A small model in evaluation mode with seeded weights. Exception if it cannot be built, or would not be small."""
    recipe = RECIPES.get(architecture, Recipe())
    config = small_config(recipe.config or architecture, **recipe.changes)
    kind = model_class(architecture, recipe.model, config)
    with torch.device("meta"):
        num_parameters = sum(parameter.numel() for parameter in kind(config).parameters())
    assert num_parameters <= MAX_PARAMETERS, f"{architecture}: {num_parameters:,} parameters"
    torch.manual_seed(0)
    return kind(config).eval()


def model_class(architecture: str, name: str, config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of this name, or else the first that an auto class has for the configuration."""
    if name:
        module = importlib.import_module(f"transformers.models.{architecture}.modeling_{architecture}")
        return cast("type[PreTrainedModel]", getattr(module, name))
    return cast(
        "type[PreTrainedModel]", next(auto._model_mapping[type(config)] for auto in AUTO if type(config) in auto._model_mapping)
    )
