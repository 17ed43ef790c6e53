"""Trainings of a second: a small Qwen3-MoE with a few updates."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe

from .lessons import BRIEF, SETS

CONFIG: dict[str, Any] = {
    "model_type": "qwen3_moe",
    "vocab_size": 260,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
    "moe_intermediate_size": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "norm_topk_prob": True,
    "tie_word_embeddings": True,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
RECIPE = """
schema = 1
workload = "lm"
[model]
huggingface = "{}"
[load]
batch_size = 1
sequence_length = 16
"""


def small_recipe(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """The path of a recipe of a small Qwen3-MoE, some of whose configuration is changed."""
    source = folder / "source"
    source.mkdir(exist_ok=True)
    (source / "config.json").write_text(json.dumps(CONFIG | dict(changes or {})))
    path = folder / "small.toml"
    path.write_text(RECIPE.format(source))
    return path


def taught(folder: Path, changes: Mapping[str, Any] | None = None, *overrides: str) -> Recipe:
    """The recipe with six updates on little text."""
    return load_recipe(str(small_recipe(folder, changes)), (*BRIEF, *SETS["lm"], *overrides))
