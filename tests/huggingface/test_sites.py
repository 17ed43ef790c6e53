"""Experts are found by structure, with their sizes."""

from collections.abc import Callable
from inspect import signature

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, VitPoseBackbone
from transformers.integrations.finegrained_fp8 import FP8Experts
from transformers.integrations.mxfp4 import Mxfp4GptOssExperts

from moeprof.huggingface.sites import find_sites
from moeprof.records.errors import UsageError
from tests.huggingface.small_models import SEVEN, small_config, small_model

FLOAT = 4
WIDTH, WIDE, NARROW = 32, 48, 16
BYTES = {
    "mixtral": 3 * WIDTH * WIDE * FLOAT,
    "olmoe": 3 * WIDTH * WIDE * FLOAT,
    "qwen3_moe": 3 * WIDTH * NARROW * FLOAT,
    "deepseek_v3": 3 * WIDTH * NARROW * FLOAT,
    "gpt_oss": (3 * WIDTH * WIDE + 2 * WIDE + WIDTH) * FLOAT,
    "granitemoe": 3 * WIDTH * WIDE * FLOAT,
    "switch_transformers": 2 * WIDTH * WIDE * FLOAT,
}
"""Of one expert: gate, up and down, two matrices in Switch; biases in gpt-oss."""


@pytest.mark.parametrize("architecture", SEVEN)
def test_a_site_knows_its_experts(architecture: str) -> None:
    sites = find_sites(small_model(architecture))
    top_k = 1 if architecture == "switch_transformers" else 2
    assert {(site.num_experts, site.num_zero, site.top_k, site.expert_bytes) for site in sites} == {
        (8, 0, top_k, BYTES[architecture])
    }
    assert {site.groups for site in sites} == {2 if architecture == "deepseek_v3" else 1}


def test_layers_have_the_numbers_of_their_modules() -> None:
    """The first layer of DeepSeek-V3 is dense, and so is every other one of the encoder."""
    assert [site.layer for site in find_sites(small_model("deepseek_v3"))] == ["1", "2", "3"]
    switch = find_sites(small_model("switch_transformers"))
    assert [site.layer for site in switch] == ["enc.1", "enc.3", "dec.0", "dec.1", "dec.2", "dec.3"]
    assert switch[0].path == "encoder.block.1.layer.1.mlp.experts"


def test_sizes_are_known_before_the_weights_are_loaded() -> None:
    model = small_model("mixtral").to("meta")
    assert {site.expert_bytes for site in find_sites(model)} == {BYTES["mixtral"]}


def test_half_precision_halves_the_bytes() -> None:
    assert find_sites(small_model("gpt_oss").to(torch.bfloat16))[0].expert_bytes == BYTES["gpt_oss"] // 2


def test_experts_in_fp8_have_a_byte_per_weight_and_a_scale_per_block() -> None:
    """The scales are float32, blocks 16 x 16."""
    model = small_model("qwen3_moe", num_hidden_layers=1)
    model.get_submodule("model.layers.0.mlp").experts = FP8Experts(model.config, block_size=(16, 16))
    assert find_sites(model)[0].expert_bytes == 3 * WIDTH * NARROW + (4 + 2) * FLOAT


@pytest.mark.skipif(
    "routing_data" in signature(Mxfp4GptOssExperts.forward).parameters, reason="this transformers sorts their rows"
)
def test_experts_in_mxfp4_have_half_a_byte_per_weight_and_biases_in_float32() -> None:
    model = small_model("gpt_oss", num_hidden_layers=1)
    model.get_submodule("model.layers.0.mlp").experts = Mxfp4GptOssExperts(model.config)
    assert find_sites(model)[0].expert_bytes == 3 * WIDTH * WIDE // 2 + (2 * WIDE + WIDTH) * FLOAT


def test_a_dense_model_is_refused() -> None:
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    )
    with pytest.raises(
        UsageError, match=r"LlamaForCausalLM: no layer with experts was found, it is a dense model\n.*ids \[T, K\]"
    ):
        find_sites(model)


def doge() -> PreTrainedModel:
    return small_model("doge", is_moe=True, num_experts=16)


def vitpose() -> PreTrainedModel:
    return VitPoseBackbone(small_config("vitpose_backbone", num_experts=2, part_features=8))


def nllb() -> PreTrainedModel:
    return small_model("nllb-moe")


@pytest.mark.parametrize(
    ("make", "reason"), [(doge, "rows of embeddings"), (vitpose, "by the data set"), (nllb, "experts 0 and 1")]
)
def test_experts_of_an_unsupported_kind_are_named(make: Callable[[], PreTrainedModel], reason: str) -> None:
    with pytest.raises(UsageError, match=rf"are not supported: .*{reason}"):
        find_sites(make())
