"""Fused and separate experts of models of transformers are packed like others: bytes fall, and their model computes nearly the same."""

import pytest
import torch

from moeprof.huggingface.buffers import from_parameters
from moeprof.moe.sparse_layer import sparse_layers
from moeprof.records.precision import PRECISIONS
from moeprof.store.entry import EntryLayout
from moeprof.store.precision import packed_layout, packing, unpack
from moeprof.store.resident import ExpertWeights
from tests.huggingface.buffered import OWN_RESIDENT, buffers, in_slots, layers_of, relative, under
from tests.huggingface.small_models import small_model

ARCHITECTURES = ["mixtral", "gpt_oss", "switch_transformers"]
"""Matrices (outputs, inputs) and (inputs, outputs) in one parameter per layer, and experts with parameters of their own."""


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_with_packed_experts_computes_nearly_what_it_does_with_its_own(architecture: str) -> None:
    model = small_model(architecture)
    layers, precision = layers_of(model), PRECISIONS["int8"]
    layouts = {layer.name: EntryLayout.of(layer.weights) for layer in sparse_layers(layers)}
    small = {name: packed_layout(layout, precision) for name, layout in layouts.items()}
    fill_packed = packing(from_parameters(layers), layouts, precision)

    def fill(layer: str, expert: int, into: ExpertWeights) -> None:
        entry = small[layer].entry(small[layer].slab(1, "cpu")[0])
        fill_packed(layer, expert, entry)
        unpack(entry, precision, into)

    with buffers(layers, fill) as slots:
        slots.fit(in_slots())
        with torch.inference_mode():
            packed, own = under(in_slots(), model, layers), under(OWN_RESIDENT, model, layers)
    assert all(small[name].entry_bytes < layouts[name].entry_bytes for name in layouts)
    assert 0 < relative(packed, own) < 0.02
