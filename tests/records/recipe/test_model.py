"""What a description of a model says about its routers."""

import pytest

from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.model import HuggingFaceSection, LayerShape, router_groups


@pytest.mark.parametrize(
    ("groups", "zero_experts", "expected"), [([4, 4], 0, 4), ([4, 2], 0, 0), ([1, 1], 0, 0), ([0, 0], 0, 0), ([4, 4], 2, 0)]
)
def test_groups_are_those_that_all_routers_have(groups: list[int], zero_experts: int, expected: int) -> None:
    """Ten experts, two of them without weights, are no four groups."""
    layers = {
        str(index): LayerShape(
            path="experts", experts=8, zero_experts=zero_experts, expert_parameters=1, expert_bytes=1, groups=number
        )
        for index, number in enumerate(groups)
    }
    assert router_groups(HuggingFaceSection(huggingface="x", layers=layers), layers) == expected


def test_routers_of_own_models_have_no_groups() -> None:
    model = load_recipe("lm-tiny").model
    assert router_groups(model, model.moe_layers_of("all")) == 0
