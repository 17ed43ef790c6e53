"""torch's grouped product: bounds stay where they are, and no more is multiplied than there are rows."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from moeprof.moe.experts import ExpertRows, Experts, make_ffn
from moeprof.moe.kernels.grouped_mm import grouped_mm, grouped_product, takes
from moeprof.records.errors import UsageError
from moeprof.records.ffn.mlp import MLP

from .rows import by_hand, make_experts, segments

RELU = make_ffn(MLP, "relu")


def test_a_segment_is_multiplied_by_its_own_matrix_and_gets_its_own_bias() -> None:
    rows_RM = torch.eye(4)[:3]
    weights_PMN = torch.stack([torch.eye(4), torch.zeros(4, 4), 2 * torch.eye(4)])
    bias_PN = torch.tensor([[10.0], [20.0], [30.0]]).expand(3, 4)
    found_RN = grouped_product(
        rows_RM, weights_PMN, bias_PN, torch.tensor([1, 1, 3], dtype=torch.int32), torch.tensor([1, 0, 2])
    )
    assert found_RN.tolist() == [[11, 10, 10, 10], [30, 32, 30, 30], [30, 30, 32, 30]]


def grouped_flops(rows: tuple[int, ...], weights: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of every row times one matrix; torch counts none."""
    return 2 * rows[0] * weights[1] * weights[2]


def test_only_rows_that_exist_are_multiplied() -> None:
    """Without values: shapes decide everything, and bounds are never read."""
    experts = make_experts(4, 8, 16).bfloat16().to("meta")
    inputs = ExpertRows(
        torch.empty(10, 8, dtype=torch.bfloat16, device="meta"), torch.empty(5, dtype=torch.int32, device="meta")
    )
    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten._grouped_mm: grouped_flops}) as counter:
        outputs_RD = grouped_mm(inputs, experts.weights, RELU)
    assert (tuple(outputs_RD.shape), outputs_RD.dtype) == ((10, 8), torch.bfloat16)
    assert counter.get_total_flops() == 2 * 2 * 10 * 8 * 16


def torch_takes(experts: Experts) -> bool:
    """Whether its own product of one row with each matrix is computed."""
    ends = torch.ones(len(experts.w1), dtype=torch.int32)
    try:
        for whole in (experts.w1, experts.w2):
            F.grouped_mm(whole.new_ones(1, whole.shape[1]), whole, offs=ends)
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dim", [1, 3, 4, 8, 12])
@pytest.mark.parametrize("ffn_dim", [4, 6, 8, 20])
def test_widths_are_refused_where_torch_refuses_them_and_nowhere_else(dim: int, ffn_dim: int, dtype: torch.dtype) -> None:
    experts = make_experts(2, dim, ffn_dim).to(dtype)
    assert takes(experts.weights) is torch_takes(experts)


def test_a_width_that_is_refused_is_named() -> None:
    with pytest.raises(UsageError, match=r"not 4 and 6\nUse --kernel auto or --kernel loop"):
        grouped_mm(segments([1, 2]), make_experts(2, 4, 6).weights, RELU)


def test_rows_of_nobody_are_given_back_as_they_are() -> None:
    inputs = segments([0, 0])
    assert grouped_mm(inputs, make_experts(2).weights, RELU) is inputs.rows_RD


@pytest.mark.cuda
@pytest.mark.parametrize("loads", [[3, 0, 200, 1], [0, 0, 0, 7], [64] * 4])
def test_on_cuda_bounds_stay_on_the_device(loads: list[int]) -> None:
    experts, inputs = make_experts(4, 64, 128), segments(loads, 64)
    exact_RD = by_hand(inputs, experts)
    on_device = ExpertRows(inputs.rows_RD.bfloat16().cuda(), inputs.offsets.cuda())  # type: ignore[union-attr]
    weights = experts.bfloat16().cuda().weights
    grouped_mm(on_device, weights, RELU)  # whatever is set up once, is set up here
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outputs_RD = grouped_mm(on_device, weights, RELU)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(outputs_RD.float().cpu(), exact_RD, rtol=0.05, atol=0.02 * float(exact_RD.abs().max()))
