"""What the layer costs, on shapes alone: the paper's FLOPs, memory beside static gating's, and no look at a value."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from moeprof.instrument.memory import MemoryTracker
from moeprof.instrument.step import Step
from moeprof.moe.layer import MoELayer
from moeprof.records.recipe.files import load_recipe
from moeprof.records.recipe.variant import STATIC, Variant

from .drawn import make_layer, make_recipe, tokens

ALL_REAL = Step(real_T=None)
DYNAMIC, TUTEL = Variant("dynamic", "grouped_mm"), Variant("tutel")
LM = {"experts": 512, "dim": 1024, "ffn_dim": 4096, "fraction": 0.05}
MT = {"experts": 128, "dim": 2048, "ffn_dim": 8192, "fraction": 1.0}


def grouped_flops(rows: tuple[int, ...], weights: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of every row times one matrix; torch counts none."""
    return 2 * rows[0] * weights[1] * weights[2]


def bfloat16(layer: MoELayer) -> MoELayer:
    """Its experts; the router stays as it is. `nn.Module.to` cannot change parameters that are fake."""
    for name, parameter in list(layer.experts.named_parameters()):
        setattr(layer.experts, name, nn.Parameter(parameter.bfloat16(), requires_grad=False))
    return layer


def flops(num_tokens: int, variant: Variant = STATIC, *, fraction: float, **shape: Any) -> tuple[int, int]:
    """Of the products with masks (the gate's taken off), and of the experts' products, as torch counts them."""
    with torch.device("meta"):
        layer = bfloat16(MoELayer("1", make_recipe(capacity_fraction=fraction, **shape)).requires_grad_(False))
        x_TD = torch.empty(num_tokens, shape["dim"], dtype=torch.bfloat16)
    layer.variant = variant
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped_flops}) as counter:
        layer(x_TD, ALL_REAL)
    counts = Counter(counter.get_flop_counts()["Global"])
    gate = 2 * num_tokens * shape["dim"] * shape["experts"]
    return counts[torch.ops.aten.mm] - gate, counts[torch.ops.aten.baddbmm] + counts[torch.ops.aten._grouped_mm]


@pytest.mark.parametrize(
    ("shape", "num_tokens", "dispatch_gflop", "ffn_gflop", "ratio_to_useful"),
    [
        (LM, 2048, 221.2, 884.8, 6.44),
        (LM, 4096, 880.5, 1760.9, 12.81),
        (MT, 512, 137.4, 4398.0, 4.00),
        (MT, 2048, 2199.0, 17592.0, 16.0),
    ],
)
def test_the_flops_of_the_anchor_table(
    shape: dict[str, Any], num_tokens: int, dispatch_gflop: float, ffn_gflop: float, ratio_to_useful: float
) -> None:
    masks, experts = flops(num_tokens, **shape)
    useful = 2 * num_tokens * 4 * shape["dim"] * shape["ffn_dim"]
    assert masks / 2 / 1e9 == pytest.approx(dispatch_gflop, abs=0.05)
    assert experts / 1e9 == pytest.approx(ffn_gflop, rel=1e-4)
    assert masks / useful == pytest.approx(ratio_to_useful, abs=0.006)
    assert flops(num_tokens, TUTEL, **shape) == (0, experts)
    assert flops(num_tokens, DYNAMIC, **shape) == (0, useful)


@pytest.mark.parametrize("variant", [STATIC, TUTEL], ids=["static", "tutel"])
def test_statement_9_doubling_the_capacity_fraction_doubles_the_flops_of_static_and_tutel(variant: Variant) -> None:
    shape = {"experts": 512, "dim": 64, "ffn_dim": 256}
    (masks, experts), (more_masks, more_experts) = (flops(640, variant, **shape, fraction=c) for c in (0.05, 0.1))
    assert more_experts == 2 * experts > 0
    assert more_masks == 2 * masks


def test_statement_9_doubling_the_capacity_fraction_leaves_the_flops_of_dynamic_gating_alone() -> None:
    shape = {"experts": 512, "dim": 64, "ffn_dim": 256}
    once, twice = (flops(640, DYNAMIC, **shape, fraction=fraction) for fraction in (0.05, 0.1))
    assert once == twice == (0, 2 * 640 * 4 * 64 * 256)


# Without values


def without_values(variant: Variant, num_tokens: int, real: int, **shape: Any) -> tuple[Tensor, MemoryTracker]:
    """Output and memory on fake tensors: whatever depended on a value would be refused."""
    with torch.inference_mode(), FakeTensorMode(allow_non_fake_inputs=False):
        layer = bfloat16(MoELayer("1", make_recipe(**shape)).requires_grad_(False))
        layer.variant, tracker = variant, MemoryTracker(layer)
        step = Step(torch.ones(num_tokens, dtype=torch.bool), num_real=real)
        x_TD = torch.empty(num_tokens, shape["dim"], dtype=torch.bfloat16)
        with tracker.observing():
            y_TD = layer(x_TD, step)
    return y_TD, tracker


def lm_15b() -> dict[str, Any]:
    """Shape of one layer: E = 512, D = 768, F = 3072, top-2, C = 0.05."""
    recipe = load_recipe("lm-15b")
    model, gating = recipe.model, recipe.gating
    assert (model.experts, model.dim, model.ffn_dim, model.dtype) == (512, 768, 3072, "bfloat16")
    assert (gating.top_k, gating.capacity_fraction) == (2, 0.05)
    return {
        "experts": model.experts,
        "dim": model.dim,
        "ffn_dim": model.ffn_dim,
        "activation": model.activation,
        "top_k": gating.top_k,
        "capacity_fraction": gating.capacity_fraction,
    }


@pytest.mark.parametrize("variant", [STATIC, TUTEL, DYNAMIC], ids=["static", "tutel", "dynamic"])
def test_the_layer_of_lm_15b_runs_on_fake_tensors_without_looking_at_a_value(variant: Variant) -> None:
    y_TD, _ = without_values(variant, 4096, 4000, **lm_15b())
    assert (tuple(y_TD.shape), y_TD.dtype) == ((4096, 768), torch.bfloat16)


def test_dynamic_gating_on_meta_tensors_decides_by_shapes_alone_with_the_kernel_that_is_chosen_by_itself() -> None:
    with torch.device("meta"):
        layer = bfloat16(MoELayer("1", make_recipe(experts=64, dim=32, ffn_dim=64)).requires_grad_(False))
        x_TD, real_T = torch.empty(100, 32, dtype=torch.bfloat16), torch.empty(100, dtype=torch.bool)
    layer.variant = Variant("dynamic")
    assert layer(x_TD, Step(real_T, num_real=70)).shape == (100, 32)


def test_dynamic_gating_must_count_where_nobody_knows_how_many_tokens_are_real() -> None:
    with torch.device("meta"):
        layer = bfloat16(MoELayer("1", make_recipe(experts=4, dim=32, ffn_dim=64)).requires_grad_(False))
        x_TD, real_T = torch.empty(10, 32, dtype=torch.bfloat16), torch.empty(10, dtype=torch.bool)
    layer.variant = DYNAMIC
    with pytest.raises(RuntimeError, match="meta"):
        layer(x_TD, Step(real_T))


def test_the_layer_of_lm_15b_needs_20_times_less_dispatch_memory_under_dynamic_gating() -> None:
    """4096 tokens: 2.15 GiB under static gating; rows, hidden and biases of 8192 rows under dynamic, 108 MiB."""
    peaks = {}
    for variant in (STATIC, DYNAMIC):
        _, tracker = without_values(variant, 4096, 4096, **lm_15b())
        peaks[variant.dispatch] = (tracker.bytes.by_category["dispatch_buffers"], tracker.bytes.peak.total)
    assert peaks["static"][0] / 2**30 == pytest.approx(2.15, abs=0.01)
    assert peaks["dynamic"][0] / 2**20 == pytest.approx(108, abs=1)
    assert all(dynamic < 0.05 * static for dynamic, static in zip(peaks["dynamic"], peaks["static"], strict=True))


def test_statement_5_the_whole_layer_grows_with_the_tokens_under_dynamic_gating() -> None:
    sizes = [320 * 2**power for power in range(6)]
    peaks = [without_values(DYNAMIC, size, size, **lm_15b())[1].bytes.by_category["dispatch_buffers"] for size in sizes]
    slope, _ = np.polyfit(np.log(sizes), np.log(peaks), 1)
    assert slope == pytest.approx(1.0, abs=0.02)


@pytest.mark.cuda
@pytest.mark.parametrize("kernel", ["auto", "grouped_mm"])
def test_on_cuda_dynamic_gating_never_waits_for_the_device(kernel: str) -> None:
    layer = bfloat16(make_layer(make_recipe(experts=32, dim=64, ffn_dim=128)).cuda())
    layer.variant, exact = Variant("dynamic", kernel), make_layer(make_recipe(experts=32, dim=64, ffn_dim=128))
    x_TD, real_T = tokens(300, 64).bfloat16(), torch.arange(300) < 280
    step, x_on_device_TD = Step(real_T.cuda(), num_real=280), x_TD.cuda()
    with torch.inference_mode():
        layer(x_on_device_TD, step)  # whatever is set up once, is set up here
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            y_TD = layer(x_on_device_TD, step)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        exact.variant = None
        exact_TD = exact(x_TD.float(), Step(real_T))
    torch.testing.assert_close(y_TD.float().cpu(), exact_TD, rtol=0.05, atol=0.05 * float(exact_TD.abs().max()))
