"""From recipes to models: the paper's parameter counts, closed forms against the model itself, twins."""

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from moeprof.analysis.model_size import num_parameters as counted
from moeprof.analysis.model_size import parameters_by_part, weight_bytes
from moeprof.instrument.step import Step
from moeprof.models.build import Model, build_model, make_model, num_parameters
from moeprof.models.language_model import LanguageModel
from moeprof.models.transformer import DenseFFN
from moeprof.models.translation_model import TranslationModel
from moeprof.moe.layer import MoELayer, force_routing, moe_layers, use_variant
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import Variant
from tests.moe import plain

from .shapes import ALL_REAL, every_form, lively, real_up_to, remembered, small, step_of, words

BUILTIN = ("lm-tiny", "lm-small", "lm-15b", "lm-52b", "mt-tiny", "mt-small", "mt-54b")
GPUS = 8
WAYS = [("static", "bmm"), ("tutel", "loop"), ("tutel-dropless", "grouped_mm"), ("dynamic", "loop"), ("dynamic", "auto")]


def parts_of(model: Model) -> dict[str, int]:
    """Parameters by part, told from the modules' names."""
    parts = dict.fromkeys(("embedding", "attention", "dense_ffn", "norm", "router", "experts"), 0)
    for name, parameter in model.named_parameters():
        words = set(name.split("."))
        if "embedding" in words:
            part = "embedding"
        elif any(word.endswith("norm") for word in words):
            part = "norm"
        elif words & {"attention", "cross_attention"}:
            part = "attention"
        else:
            part = next(iter(words & {"router", "experts"}), "dense_ffn")
        parts[part] += parameter.numel()
    return parts


@every_form
@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_the_closed_forms_agree_with_the_model_of_any_ffn_form(workload: str, dense: bool, form: dict[str, Any]) -> None:
    recipe = small(workload, **form)
    assert parameters_by_part(recipe.model, dense=dense) == parts_of(make_model(recipe, dense=dense))


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.parametrize("dense", [False, True])
def test_the_closed_forms_agree_with_the_model_part_by_part(name: str, dense: bool) -> None:
    recipe = load_recipe(name)
    model = make_model(recipe, dense=dense)
    assert parameters_by_part(recipe.model, dense=dense) == parts_of(model)
    assert counted(recipe.model, dense=dense) == num_parameters(model) == sum(parts_of(model).values())
    assert weight_bytes(recipe.model, dense=dense) == sum(parameter.nbytes for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "dense", "billions", "tolerance"),
    [
        ("lm-52b", False, 51.83, 0.005),
        ("mt-54b", False, 54.5006, 0.00005),
        ("lm-15b", False, 14.61, 0.005),
        ("lm-52b", True, 0.3547, 0.00005),
        ("mt-54b", True, 3.345, 0.0005),
    ],
)
def test_statement_10_the_big_three_have_the_papers_parameters(
    name: str, dense: bool, billions: float, tolerance: float
) -> None:
    assert num_parameters(make_model(load_recipe(name), dense=dense)) / 1e9 == pytest.approx(billions, abs=tolerance)


@pytest.mark.parametrize(("name", "each", "mebibytes"), [("lm-52b", 8_393_728, 16.01), ("mt-54b", 33_564_672, 64.02)])
def test_statement_10_an_expert_has_the_papers_size(name: str, each: int, mebibytes: float) -> None:
    layer = moe_layers(make_model(load_recipe(name)))[0]
    one_expert = sum(parameter[0].numel() for parameter in layer.experts.parameters())
    assert one_expert == each
    assert one_expert * 2 / 2**20 == pytest.approx(mebibytes, abs=0.005)


@pytest.mark.parametrize(("name", "gibibytes"), [("lm-52b", 12.49), ("mt-54b", 17.49)])
def test_statement_10_weights_on_each_of_eight_gpus(name: str, gibibytes: float) -> None:
    """Every GPU has an eighth of the experts and a copy of everything else, in 16 bits."""
    parts = parts_of(make_model(load_recipe(name)))
    experts = parts.pop("experts")
    assert (experts / GPUS + sum(parts.values())) * 2 / 2**30 == pytest.approx(gibibytes, abs=0.005)


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("lm-52b", [str(index) for index in range(1, 24, 2)]),
        ("mt-54b", [f"{stack}.{index}" for stack in ("enc", "dec") for index in (3, 7, 11, 15, 19, 23)]),
    ],
)
def test_the_moe_layers_of_the_paper_are_where_fairseq_puts_them(name: str, layers: list[str]) -> None:
    assert [layer.name for layer in moe_layers(make_model(load_recipe(name)))] == layers


@pytest.mark.parametrize("name", BUILTIN)
def test_a_models_shape_takes_no_memory_and_only_routers_are_always_float32(name: str) -> None:
    recipe = load_recipe(name)
    for parameter_name, parameter in make_model(recipe).named_parameters():
        assert parameter.is_meta
        assert not parameter.requires_grad
        wanted = torch.float32 if "router" in parameter_name else getattr(torch, recipe.model.dtype)
        assert parameter.dtype == wanted, parameter_name


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_the_dense_twin_has_the_same_parameters_where_names_coincide(workload: str) -> None:
    model = dict(build_model(small(workload)).named_parameters())
    twin = dict(build_model(small(workload), dense=True).named_parameters())
    common = model.keys() & twin.keys()
    assert all(torch.equal(model[name], twin[name]) for name in common)
    assert all("ffn.router" in name or "ffn.experts" in name for name in model.keys() - common)
    assert all("ffn.w1" in name or "ffn.w2" in name for name in twin.keys() - common)


@pytest.mark.parametrize("workload", ["lm", "mt"])
def test_the_dense_twin_has_every_ffn_dense_at_the_same_width(workload: str) -> None:
    twin = build_model(small(workload), dense=True)
    assert not moe_layers(twin)
    assert {tuple(p.shape) for name, p in twin.named_parameters() if name.endswith("ffn.w1.weight")} == {(24, 16)}
    force_routing(twin, None)  # nothing to force, and no error


@every_form
def test_a_model_with_one_expert_is_its_dense_twin(device: str, form: dict[str, Any]) -> None:
    """Routing to the only expert computes what a dense FFN with its weights computes."""
    recipe = small("lm", experts=1, top_k=1, **form, device=device)
    model, twin = build_model(recipe), lively(build_model(recipe, dense=True))
    model.load_state_dict(twin.state_dict(), strict=False)
    assert isinstance(model, LanguageModel)
    for layer, dense in zip(model.layers, twin.layers, strict=True):
        if isinstance(layer.ffn, MoELayer):
            for matrix in recipe.model.ffn_form.matrices:
                layer.ffn.experts.weights[matrix.name][0] = dense.ffn.get_parameter(f"{matrix.name}.weight").T
                if recipe.model.ffn_bias:
                    layer.ffn.experts.weights[matrix.bias][0] = dense.ffn.get_parameter(f"{matrix.name}.bias")
    torch.testing.assert_close(
        model(words(2, 5, device=device), ALL_REAL), twin(words(2, 5, device=device), ALL_REAL), rtol=1e-4, atol=1e-5
    )


@every_form
def test_a_dense_ffn_is_the_plain_one(form: dict[str, Any]) -> None:
    """In float64, weights transposed and biases under the names that plain loops use."""
    model = small("lm", **form).model
    dense = DenseFFN(model).double().requires_grad_(False)
    names = {f"{matrix.name}.weight": matrix.name for matrix in model.ffn_form.matrices}
    names |= {f"{matrix.name}.bias": matrix.bias for matrix in model.ffn_form.matrices}
    tensors = {names[name]: parameter.numpy().T for name, parameter in dense.named_parameters()}
    assert tensors.keys() == model.ffn_shapes.keys()
    x_TD = torch.randn(3, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = np.array([plain.ffn(x_D, tensors, model.activation) for x_D in x_TD.numpy()])
    torch.testing.assert_close(dense(x_TD), torch.from_numpy(expected))


def test_lm_15b_runs_from_end_to_end_on_meta_tensors() -> None:
    """8 sequences of 512 tokens: shapes alone decide what happens."""
    model = make_model(load_recipe("lm-15b"))
    step = Step(real_T=torch.ones(8 * 512, dtype=torch.bool, device="meta"))
    logits_BLV = model(torch.zeros(8, 512, dtype=torch.int64, device="meta"), step)
    assert (tuple(logits_BLV.shape), logits_BLV.dtype) == ((8, 512, 51_200), torch.bfloat16)


def test_mt_54b_decodes_on_meta_tensors() -> None:
    """48 sentences of 32 tokens, then one step."""
    model = make_model(load_recipe("mt-54b"))
    assert isinstance(model, TranslationModel)
    step = Step(real_T=torch.ones(48 * 32, dtype=torch.bool, device="meta"))
    memory = remembered(model, torch.zeros(48, 32, dtype=torch.int64, device="meta"), step)
    token_B1 = torch.zeros(48, 1, dtype=torch.int64, device="meta")
    logits_B1V = model(token_B1, memory, ALL_REAL, model.empty_caches(48, 32))
    assert tuple(logits_B1V.shape) == (48, 1, 256_206)


@pytest.mark.parametrize("workload", ["lm", "mt"])
@pytest.mark.parametrize("way", WAYS, ids="-".join)
def test_a_model_predicts_the_same_however_its_layers_are_executed(device: str, workload: str, way: tuple[str, str]) -> None:
    """With padding, and room for everybody: the words are the same, and so are the routers' decisions."""
    model, step = build_model(small(workload, device=device)), step_of(real_up_to([8, 3, 5], 8, device=device))
    memory = () if isinstance(model, LanguageModel) else (remembered(model, words(3, 8, device=device), step),)
    real_T = step.real_T
    logits = []
    for variant in (None, Variant(*way)):
        use_variant(model, variant)
        logits.append(model(words(3, 8, seed=1, device=device), *memory, step).flatten(0, 1)[real_T])
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-4)


def test_a_model_of_random_weights_has_logits_of_order_one(device: str) -> None:
    """Neither vanishing nor exploding: an untrained model still routes in all directions."""
    for workload in ("lm", "mt"):
        model = build_model(small(workload, dim=64, ffn_dim=128, device=device))
        memory = () if isinstance(model, LanguageModel) else (remembered(model, words(4, 8, device=device)),)
        spread = model(words(4, 8, device=device), *memory, ALL_REAL).std().item()
        assert math.isfinite(spread)
        assert 0.3 < spread < 3


def test_to_build_and_weigh_a_model_torch_imports_neither_its_compiler_nor_symbolic_shapes() -> None:
    """That would take longer than a small run; what a model computes is not compiled."""
    code = """
import sys, torch
from moeprof.instrument.memory import Allocations
from moeprof.models.build import build_model
from moeprof.records.recipe.files import load_recipe
model = build_model(load_recipe("lm-tiny"))
with Allocations(lambda outputs, inputs: None):
    torch.ones(2) + 1
print({"torch._dynamo", "sympy"} & set(sys.modules))
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
