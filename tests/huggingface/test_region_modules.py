"""Modules of regions are those of the architecture, and run one after another."""

from collections.abc import Callable

import pytest
from torch import nn

from moeprof.huggingface.region_modules import region_modules
from moeprof.huggingface.sites import find_sites
from tests.huggingface.architectures import build
from tests.huggingface.forward import forward


def regions(architecture: str) -> dict[tuple[str, str], list[str]]:
    """The paths by region and layer."""
    model = build(architecture)
    found: dict[tuple[str, str], list[str]] = {}
    for one in region_modules(model, find_sites(model)):
        found.setdefault((one.region, one.layer), []).append(one.path)
    return found


def test_regions_of_a_decoder() -> None:
    found = regions("deepseek_v3")
    assert found["embed", ""] == ["model.embed_tokens"]
    assert found["head", ""] == ["lm_head"]
    assert [layer for region, layer in found if region == "attention"] == ["0", "1", "2", "3"]
    assert [layer for region, layer in found if region == "experts"] == ["1", "2", "3"]
    assert found["attention", "2"] == ["model.layers.2.self_attn"]
    assert found["gate", "2"] == ["model.layers.2.mlp.gate"]
    assert found["experts", "2"] == ["model.layers.2.mlp.experts"]
    assert found["shared_experts", "2"] == ["model.layers.2.mlp.shared_experts"]


def test_regions_of_an_encoder_and_a_decoder() -> None:
    found = regions("switch_transformers")
    assert found["attention", "enc.1"] == ["encoder.block.1.layer.0"]
    assert found["cross_attention", "dec.1"] == ["decoder.block.1.layer.1"]
    assert found["gate", "enc.1"] == ["encoder.block.1.layer.1.mlp.router"]


def test_experts_inside_attention_have_the_region() -> None:
    """JetMoE: query and output projections are experts."""
    found = regions("jetmoe")
    experts = "model.layers.0.self_attention.experts"
    assert found["experts", "0.attention"] == [f"{experts}.input_linear", f"{experts}.output_linear"]
    assert ("attention", "0") not in found


def test_shared_experts_beside_the_block_of_experts_belong_to_its_layer() -> None:
    assert regions("granitemoeshared")["shared_experts", "1"] == ["model.layers.1.shared_mlp"]


def test_a_router_that_chooses_by_token_is_a_gate() -> None:
    """The first layers of DeepSeek-V4: transformers records no scores of theirs."""
    assert regions("deepseek_v4")["gate", "0"] == ["model.layers.0.mlp.gate"]


@pytest.mark.parametrize(
    "architecture", ["gpt_oss", "gemma4", "ernie4_5_vl_moe", "llama4", "jetmoe", "switch_transformers", "qwen2_moe"]
)
def test_no_region_is_entered_inside_another(architecture: str) -> None:
    model = build(architecture)
    inside: list[str] = []
    entered: list[str] = []

    def enter(region: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            assert not inside, f"{region} in {inside}"
            inside.append(region)
            entered.append(region)

        return hook

    def leave(module: nn.Module, args: object, output: object) -> None:
        inside.pop()

    for one in region_modules(model, find_sites(model)):
        one.module.register_forward_pre_hook(enter(one.region))
        one.module.register_forward_hook(leave)
    forward(model)
    assert {"experts", "gate", "embed"} <= set(entered)
