"""An FFN form that one call registered is handled everywhere: nothing else in moeprof lists forms or names of tensors."""

from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moeprof.analysis.model_size import (
    dynamic_layer_bytes,
    entry_bytes,
    expert_bytes,
    ffn_parameters,
    flops_per_token,
    num_parameters,
)
from moeprof.models import build
from moeprof.models.build import build_model, make_model
from moeprof.moe.experts import ExpertRows, make_ffn
from moeprof.moe.kernels import KERNELS
from moeprof.parallel.group import Group
from moeprof.records.ffn.form import FFNForm, Matrix, widening
from moeprof.records.ffn.registry import FFN_FORMS, register
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.run.run import Run
from tests.models.shapes import small
from tests.moe import plain
from tests.records.run.runs import value_of
from tests.studies.runs import values

BUFFERED = "dynamic+loop+buffered"
Call = Callable[..., tuple[int, str, str]]

LEFT, MIDDLE, RIGHT = (
    Matrix("left", "left_offset", widening),
    Matrix("middle", "middle_offset", lambda dim, ffn_dim: (ffn_dim, 2 * ffn_dim)),
    Matrix("right", "right_offset", lambda dim, ffn_dim: (2 * ffn_dim, dim)),
)


def outputs(rows: Any, product: Callable[[Any, Matrix], Any], activation: Callable[[Any], Any]) -> Any:
    """Three matrices in a row."""
    return product(activation(product(activation(product(rows, LEFT)), MIDDLE)), RIGHT)


DEEP = FFNForm("deep", (LEFT, MIDDLE, RIGHT), outputs, hidden_buffers=4)
DIM, FFN_DIM = 16, 24
PARAMETERS = 16 * 24 + 24 + 24 * 48 + 48 + 48 * 16 + 16


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(DEEP)
    yield
    del FFN_FORMS["deep"]


def by_hand(x_D: plain.Array, one: dict[str, plain.Array]) -> plain.Array:
    """One token through one expert, in float64."""
    for matrix in ("left", "middle", "right"):
        x_D = x_D @ one[matrix] + one[f"{matrix}_offset"]
        x_D = x_D if matrix == "right" else np.maximum(x_D, 0)
    return x_D


def deep(workload: str = "lm", ranks: int = 1) -> Recipe:
    recipe = small(workload, ffn="deep", activation="relu")
    return recipe.model_copy(update={"parallel": recipe.parallel.model_copy(update={"ranks": ranks})})


@pytest.mark.parametrize("dense", [False, True])
def test_parameters_and_sizes_follow_from_its_shapes(dense: bool) -> None:
    recipe = deep()
    assert ffn_parameters(recipe.model) == PARAMETERS
    assert (expert_bytes(recipe.model), entry_bytes(recipe.model)) == (4 * PARAMETERS, 12288)
    assert num_parameters(recipe.model, dense=dense) == build.num_parameters(make_model(recipe, dense=dense))
    usual = small("lm")
    more = PARAMETERS - (2 * 16 * 24 + 24 + 16)
    assert flops_per_token(recipe) - flops_per_token(usual) == 2 * (2 + 2 * 2) * more  # 2 dense layers, 2 of top-2
    rows = 2 * 5000
    assert dynamic_layer_bytes(recipe, 5000) - dynamic_layer_bytes(usual, 5000) == (4 - 2) * rows * FFN_DIM * 4


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
def test_every_kernel_computes_it(kernel: Any) -> None:
    experts = build_model(deep()).layers[1].ffn.experts
    random = torch.Generator().manual_seed(0)
    for parameter in experts.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=random))
    x_RD = torch.randn(12, DIM, generator=random)
    found_RD = kernel(ExpertRows(x_RD, range(0, 13, 3)), experts.weights, make_ffn(DEEP, "relu"))
    bounds = [0, *accumulate([3] * 4)]
    whole = {name: weights.double().numpy() for name, weights in experts.weights.items()}
    expected = [
        by_hand(row, plain.of_expert(whole, expert))
        for expert, (first, last) in enumerate(pairwise(bounds))
        for row in x_RD[first:last].double().numpy()
    ]
    torch.testing.assert_close(found_RD, torch.tensor(np.array(expected)).float(), rtol=1e-4, atol=1e-3)


def test_random_weights_are_split_over_ranks_and_its_biases_are_zero() -> None:
    whole = dict(build_model(deep()).named_parameters())
    for name in ("left", "middle", "right"):
        stacked = f"layers.1.ffn.experts.{name}"
        parts = [dict(build_model(deep(ranks=2), group=Group(rank, 2)).named_parameters()) for rank in (0, 1)]
        assert torch.equal(torch.cat([part[stacked] for part in parts]), whole[stacked])
        assert whole[stacked].std() > 0
        assert not whole[f"{stacked}_offset"].any()
        assert not whole[f"layers.0.ffn.{name}.bias"].any()


def test_a_run_buffers_its_experts_and_outputs_agree(moeprof: Call, micro: Callable[[str], Path], tmp_path: Path) -> None:
    """Its experts come from the expert file, slot by slot."""
    chosen = ("--set", "model.ffn=deep", "--set", "load.phases=['score']", "--no-sweep", "--kernel", "loop", "--slots", "2")
    out = tmp_path / "run"
    code, _, stderr = moeprof("optimize", micro("lm"), "--dynamic-gating", "--expert-buffering", *chosen, "--out", out)
    assert (code, stderr) == (0, "")
    run = Run.open(out)
    assert run.record.valid
    assert run.record.ran.model.ffn == "deep"
    assert value_of(run, "expert_accesses", phase="score", variant=BUFFERED)
    assert values(run, "output_tokens_differing", "phase", variant=BUFFERED) == {("score",): 0}
    assert load_recipe("lm-tiny").model.ffn == "mlp"
