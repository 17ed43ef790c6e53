"""Layers are named by the number in the path of their experts."""

import pytest

from moeprof.huggingface.layer_names import layer_names, needs_other_input


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["model.layers.3.mlp.experts", "model.layers.12.mlp.experts"], ["3", "12"]),
        (["encoder.block.1.layer.1.mlp.experts", "decoder.block.1.layer.2.mlp.experts"], ["enc.1", "dec.1"]),
        (["model.layers.3.self_attention.experts", "model.layers.3.mlp"], ["3.attention", "3"]),
        (["layers.3.mlp.text_moe.experts", "layers.3.mlp.vision_moe.experts"], ["3", "3.vision"]),
        (["thinker.model.layers.0.mlp.experts", "talker.model.layers.0.mlp.experts"], ["0", "0.talker"]),
        (["a.layers.0.experts", "b.layers.0.experts"], ["0.a.layers.0.experts", "0.b.layers.0.experts"]),
        (["mlp.experts"], ["mlp.experts"]),
    ],
)
def test_names_are_short_and_all_different(paths: list[str], names: list[str]) -> None:
    assert layer_names(paths) == names


@pytest.mark.parametrize(
    ("layer", "expected"), [("3", False), ("3.vision", True), ("0.talker", True), ("3.attention", False), ("enc.3", False)]
)
def test_experts_for_images_and_speech_may_be_silent(layer: str, expected: bool) -> None:
    assert needs_other_input(layer) is expected
