"""Which layers of a model have experts, as its config.json says it."""

import json
from pathlib import Path
from typing import Any

import pytest

from moeprof.records.errors import UsageError
from moeprof.records.traces.model_facts import facts_of, read_model_facts

PLAIN = {"num_hidden_layers": 6, "num_experts": 8, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("keys", "layers"),
    [
        ({}, (0, 1, 2, 3, 4, 5)),
        ({"first_k_dense_replace": 2}, (2, 3, 4, 5)),
        ({"first_k_dense_replace": 1, "moe_layer_freq": 2}, (2, 4)),
        ({"first_k_dense_replace": 3, "moe_layer_freq": [0, 1, 1, 0, 0, 1]}, (1, 2, 5)),
        ({"decoder_sparse_step": 2}, (1, 3, 5)),
        ({"decoder_sparse_step": 1, "mlp_only_layers": [0, 3]}, (1, 2, 4, 5)),
        ({"interleave_moe_layer_step": 2}, (1, 3, 5)),
        ({"interleave_moe_layer_step": 2, "moe_layers": [0, 4]}, (0, 4)),
        ({"num_dense_layers": 2}, (2, 3, 4, 5)),
        ({"expert_layer_period": 2, "expert_layer_offset": 1}, (1, 3, 5)),
        ({"moe_layer_interval": 1, "moe_layer_start_index": 1, "moe_layer_end_index": -1}, (1, 2, 3, 4, 5)),
        ({"moe_layer_interval": 2, "moe_layer_start_index": 1, "moe_layer_end_index": 4}, (1, 3)),
        ({"mlp_layer_types": ["dense", "sparse", "sparse", "dense", "dense", "sparse"]}, (1, 2, 5)),
        ({"moe_layers_enum": "2,3"}, (2, 3)),
        ({"hybrid_override_pattern": "ME*EM-"}, (1, 3)),
        ({"layers_block_type": ["moe", "mamba", "attention", "moe", "mamba", "mamba"]}, (0, 3)),
        ({"moe_layers": None, "moe_intermediate_size": 4, "expert_layernorm": True}, (0, 1, 2, 3, 4, 5)),
    ],
)
def test_layers_with_experts_are_those_that_the_keys_name(keys: dict[str, Any], layers: tuple[int, ...]) -> None:
    facts = facts_of(PLAIN | keys)
    assert (facts.layers.moe_layers, facts.layers.num_layers) == (layers, 6)


@pytest.mark.parametrize("key", ["n_routed_experts", "num_local_experts", "moe_num_experts"])
def test_the_number_of_experts_has_several_names(key: str) -> None:
    facts = facts_of({"text_config": {"num_hidden_layers": 2, key: 16, "moe_topk": 4}, "num_hidden_layers": 9})
    assert (facts.experts, facts.top_k, facts.layers.num_layers) == (16, 4, 2)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ({"num_experts": None}, "no Mixture-of-Experts model"),
        ({"num_experts": 0}, "num_experts = 0 is not a whole number from 1"),
        ({"n_routed_experts": 9}, "n_routed_experts and num_experts state different numbers"),
        ({"num_experts_per_tok": 9}, "a token chooses 9 experts, but there are 8"),
        ({"num_hidden_layers": None}, "no number of layers"),
        ({"num_hidden_layers": 10**9}, "not a whole number from 1 to 10000"),
        ({"first_k_dense_replace": 6}, "no layer has experts"),
        ({"first_k_dense_replace": "1"}, "first_k_dense_replace = 1 is not a whole number"),
        ({"moe_layers": [7]}, "moe_layers does not name layers from 0 to 5"),
        ({"mlp_layer_types": []}, "mlp_layer_types does not name layers"),
        ({"every_other_layer_moe": True}, "every_other_layer_moe is not known, and may say which layers have experts"),
        ({"moe_every_n_layers": 2}, "moe_every_n_layers is not known"),
        ({"encoder_layers": 6}, "an encoder-decoder"),
    ],
)
def test_what_is_not_clear_is_refused(keys: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        facts_of(PLAIN | keys)


def test_a_folder_stands_for_its_config_and_other_files_are_two_lines(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PLAIN))
    assert read_model_facts(tmp_path) == read_model_facts(tmp_path / "config.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(UsageError, match=r"not a JSON object\nGive the config\.json of a Mixture-of-Experts model"):
        read_model_facts(tmp_path / "list.json")


@pytest.mark.parametrize(
    ("model", "first", "layers", "experts", "top_k"),
    [
        ("deepseek-v3", 3, 61, 256, 8),
        ("glm-4.5-air", 1, 46, 128, 8),
        ("qwen3-30b-a3b", 0, 48, 128, 8),
        ("gpt-oss-20b", 0, 24, 32, 4),
    ],
)
def test_published_configurations_are_understood(
    shared_data: Path, model: str, first: int, layers: int, experts: int, top_k: int
) -> None:
    facts = read_model_facts(shared_data.parent / "configs" / model)
    assert facts.layers.moe_layers == tuple(range(first, layers))
    assert (facts.layers.num_layers, facts.experts, facts.top_k) == (layers, experts, top_k)
