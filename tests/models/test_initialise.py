"""Random weights are the same bits everywhere, and of the variance that is stated."""

import hashlib
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from moeprof.models.build import Model, build_model
from moeprof.models.initialise import CHUNK, fill_uniform, initialise

from .shapes import every_form, small

LM_SHA256 = "35c0137f6476742e4e2f2c75348f92b3a5d0eea593b00c624d80e348a400547c"
MT_SHA256 = "b35d6e52c97f9aad29b98478d78c51802d0f9043917089f14f0b357335ef05f7"


def sha256(model: Model) -> str:
    """Of every parameter's name and bytes, in order."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        digest.update(name.encode())
        digest.update(parameter.numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize(("workload", "pinned"), [("lm", LM_SHA256), ("mt", MT_SHA256)])
def test_the_weights_of_a_small_model_are_pinned(workload: str, pinned: str) -> None:
    assert sha256(build_model(small(workload))) == pinned


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert sha256(build_model(small("lm"))) == LM_SHA256
    finally:
        torch.set_num_threads(before)


def test_the_state_of_other_random_numbers_changes_no_bit() -> None:
    torch.manual_seed(1234)
    first = sha256(build_model(small("lm")))
    torch.rand(5)
    assert sha256(build_model(small("lm"))) == first


def test_another_seed_gives_other_weights() -> None:
    assert sha256(build_model(small("lm", seed=1))) != LM_SHA256


def test_two_parameters_of_one_shape_are_not_alike() -> None:
    layer = dict(build_model(small("lm")).named_parameters())
    assert not torch.equal(layer["layers.0.attention.q.weight"], layer["layers.0.attention.k.weight"])
    experts = layer["layers.1.ffn.experts.w1"]
    assert all(not torch.equal(experts[0], experts[other]) for other in range(1, 4))


@pytest.mark.parametrize(
    ("name", "shape", "variance"),
    [
        ("embedding.weight", (1000, 64), 1 / 64),
        ("layers.0.attention.q.weight", (64, 64), 2 / 128),
        ("layers.0.ffn.w1.weight", (256, 64), 2 / 320),
        ("layers.1.ffn.router.weight", (512, 64), 2 / 576),
        ("layers.1.ffn.experts.w1", (8, 64, 256), 2 / 320),
        ("layers.1.ffn.experts.w2", (8, 256, 64), 2 / 320),
        ("layers.1.ffn.experts.gate", (8, 64, 256), 2 / 320),
        ("layers.1.ffn.experts.down", (8, 256, 64), 2 / 320),
    ],
)
def test_matrices_are_uniform_with_the_stated_variance(name: str, shape: tuple[int, ...], variance: float) -> None:
    """Of n uniform values the variance is known within 4 standard errors, sqrt(0.8 / n) of it."""
    weight = one_parameter(name, shape)
    tolerance = 4 * math.sqrt(0.8 / weight.numel())
    assert weight.var().item() == pytest.approx(variance, rel=tolerance)
    assert weight.mean().abs().item() < 4 * math.sqrt(variance / weight.numel())
    bound = math.sqrt(3 * variance)
    assert weight.abs().max().item() <= bound * (1 + 1e-6)
    shares = torch.histc(weight, 8, -bound, bound) / weight.numel()
    assert shares.tolist() == pytest.approx([1 / 8] * 8, abs=5 * math.sqrt(1 / 8 / weight.numel()))


def one_parameter(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """A model's parameter by its full name, filled."""
    model = nn.Module()
    *path, last = name.split(".")
    inner = model
    for part in path:
        inner.add_module(part, nn.Module())
        inner = inner.get_submodule(part)
    inner.register_parameter(last, nn.Parameter(torch.empty(shape)))
    initialise(model, seed=3)
    return model.get_parameter(name).detach()


@every_form
def test_norms_are_one_and_biases_zero(form: dict[str, Any]) -> None:
    for name, parameter in build_model(small("mt", **form)).named_parameters():
        if "norm" in name and name.endswith("weight"):
            assert parameter.eq(1).all(), name
        if name.endswith(("bias", ".b1", ".b2")):
            assert parameter.eq(0).all(), name


def test_a_bfloat16_model_has_the_float32_values_rounded() -> None:
    exact = dict(build_model(small("lm")).named_parameters())
    for name, parameter in build_model(small("lm", dtype="bfloat16")).named_parameters():
        wanted = torch.float32 if "router" in name else torch.bfloat16
        assert parameter.dtype == wanted, name
        assert torch.equal(parameter, exact[name].to(wanted)), name


def test_values_do_not_depend_on_how_large_a_piece_is_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, parts = torch.empty(1001), torch.empty(1001)
    fill_uniform(whole, 1.0, "key")
    assert CHUNK % 2 == 0
    monkeypatch.setattr("moeprof.models.initialise.CHUNK", 64)
    fill_uniform(parts, 1.0, "key")
    assert torch.equal(whole, parts)


def test_a_longer_parameter_begins_with_the_shorter_one() -> None:
    long, short = torch.empty(101), torch.empty(50)
    fill_uniform(long, 1.0, "key")
    fill_uniform(short, 1.0, "key")
    assert torch.equal(long[:50], short)


@given(first=st.integers(0, 200), length=st.integers(1, 200), chunk=st.sampled_from([8, 16, 64, CHUNK]))
def test_a_part_of_a_parameter_is_drawn_without_the_rest(first: int, length: int, chunk: int) -> None:
    whole, part = torch.empty(first + length), torch.empty(length)
    fill_uniform(whole, 1.0, "key")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("moeprof.models.initialise.CHUNK", chunk)
        fill_uniform(part, 1.0, "key", first)
    assert torch.equal(part, whole[first:])
