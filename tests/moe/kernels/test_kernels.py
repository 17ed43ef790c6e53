"""What all kernels have in common: every row goes through its own expert, whatever the loads, the bounds and the waves."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.instrument.memory import MemoryTracker
from moeprof.moe.experts import ExpertRows, Kernel, make_ffn, run_experts
from moeprof.moe.kernels import KERNELS
from moeprof.moe.kernels.auto import auto
from moeprof.moe.kernels.bmm import bmm
from moeprof.moe.kernels.grouped_mm import grouped_mm
from moeprof.moe.kernels.loop import loop
from moeprof.records.ffn.form import FFNForm
from moeprof.records.ffn.mlp import MLP
from moeprof.store.resident import ResidentStore

from ..drawn import WaveStore, unhurried
from .rows import DIM, all_loads, by_hand, every_ffn, make_experts, padded, segments

RELU = make_ffn(MLP, "relu")
every_kernel = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)
for_segments = pytest.mark.parametrize("kernel", [loop, grouped_mm, auto], ids=["loop", "grouped_mm", "auto"])

EDGES = {
    "no row at all": [0, 0, 0],
    "one row": [0, 1, 0],
    "one expert": [5],
    "one expert has every row": [0, 9, 0, 0],
    "the first expert has none": [0, 2, 3],
    "the last expert has none": [3, 2, 0],
    "all have as many": [3, 3, 3, 3],
    "the last is the longest": [1, 1, 1, 9],
    "the first is the longest": [9, 1, 1, 1],
    "the longest stands between": [1, 1, 9, 1, 1],
    "the last is short behind a long one": [1, 8, 1],
    "one row each of many": [1] * 33,
}


def test_the_registry_names_the_kernels() -> None:
    assert list(KERNELS.items()) == [("bmm", bmm), ("loop", loop), ("grouped_mm", grouped_mm), ("auto", auto)]


@for_segments
@every_ffn
@unhurried
@given(loads=all_loads())
def test_a_row_goes_through_the_expert_of_its_segment(
    device: str, kernel: Kernel, form: FFNForm, bias: bool, activation: str, loads: list[int]
) -> None:
    experts, inputs = make_experts(len(loads), form=form, bias=bias).to(device), segments(loads, device=device)
    outputs_RD = kernel(inputs, experts.weights, make_ffn(form, activation))
    torch.testing.assert_close(outputs_RD.cpu(), by_hand(inputs, experts, activation), rtol=1e-4, atol=1e-4)


@every_ffn
def test_a_padded_buffer_needs_as_many_hidden_buffers_as_its_form_says(form: FFNForm, bias: bool, activation: str) -> None:
    """Without values, D far below F: beside the outputs of D, only rows x F count."""
    experts, inputs = make_experts(2, 8, 512, form, bias=bias).to("meta"), padded(2, 50, 8)
    inputs = ExpertRows(inputs.rows_RD.to("meta"), inputs.offsets)
    tracker = MemoryTracker(experts)
    with torch.inference_mode(), tracker.observing():
        bmm(inputs, experts.weights, make_ffn(form, activation))
    assert tracker.bytes.peak.total == form.hidden_buffers * 100 * 512 * 4


@for_segments
@pytest.mark.parametrize("loads", EDGES.values(), ids=EDGES)
def test_loads_at_the_edges_are_computed_like_any_others(device: str, kernel: Kernel, loads: list[int]) -> None:
    experts, inputs = make_experts(len(loads)).to(device), segments(loads, device=device)
    outputs_RD = kernel(inputs, experts.weights, RELU)
    assert outputs_RD.shape == (sum(loads), DIM)
    torch.testing.assert_close(outputs_RD.cpu(), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)


@every_kernel
@unhurried
@given(num_experts=st.integers(1, 5), slots=st.integers(1, 4))
def test_a_padded_buffer_is_taken_by_every_kernel(device: str, kernel: Kernel, num_experts: int, slots: int) -> None:
    experts, inputs = make_experts(num_experts).to(device), padded(num_experts, slots, device=device)
    outputs_RD = kernel(inputs, experts.weights, RELU)
    torch.testing.assert_close(outputs_RD.cpu(), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)


@for_segments
@pytest.mark.parametrize("offsets", [[0, 2, 2, 7], torch.tensor([0, 2, 2, 7], dtype=torch.int32)], ids=["list", "tensor"])
def test_bounds_may_be_a_list_or_a_tensor(device: str, kernel: Kernel, offsets: list[int] | Tensor) -> None:
    experts, inputs = make_experts(3).to(device), segments([2, 0, 5], device=device)
    offsets = offsets.to(device) if isinstance(offsets, Tensor) else offsets
    outputs_RD = kernel(ExpertRows(inputs.rows_RD, offsets), experts.weights, RELU)
    torch.testing.assert_close(outputs_RD.cpu(), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)


@st.composite
def loads_in_waves(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Rows of every expert, and how many experts each wave has."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    return draw(st.lists(st.integers(0, 5), min_size=sum(sizes), max_size=sum(sizes))), sizes


@for_segments
@unhurried
@given(case=loads_in_waves())
def test_segments_in_several_waves_give_the_same_as_in_one(
    device: str, kernel: Kernel, case: tuple[list[int], list[int]]
) -> None:
    loads, sizes = case
    experts, inputs = make_experts(len(loads)).to(device), segments(loads, device=device)
    together = run_experts(kernel, inputs, ResidentStore(experts.weights), RELU)
    in_waves = run_experts(kernel, inputs, WaveStore(experts.weights, sizes), RELU)
    torch.testing.assert_close(in_waves, together, rtol=1e-4, atol=1e-4)


@every_kernel
@unhurried
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), slots=st.integers(1, 3))
def test_padded_buffers_in_several_waves_give_the_same_as_in_one(
    device: str, kernel: Kernel, sizes: list[int], slots: int
) -> None:
    experts, inputs = make_experts(sum(sizes)).to(device), padded(sum(sizes), slots, device=device)
    together = run_experts(kernel, inputs, ResidentStore(experts.weights), RELU)
    in_waves = run_experts(kernel, inputs, WaveStore(experts.weights, sizes), RELU)
    torch.testing.assert_close(in_waves, together, rtol=1e-4, atol=1e-4)


@for_segments
@pytest.mark.parametrize("loads", [loads for loads in EDGES.values() if sum(loads)])
def test_bfloat16_stays_near_float32(device: str, kernel: Kernel, loads: list[int]) -> None:
    experts, inputs = make_experts(len(loads), 8, 16).to(device), segments(loads, 8, device=device)
    exact_RD = by_hand(inputs, experts)
    outputs_RD = kernel(ExpertRows(inputs.rows_RD.bfloat16(), inputs.offsets), experts.bfloat16().weights, RELU)
    assert outputs_RD.dtype == torch.bfloat16
    torch.testing.assert_close(outputs_RD.float().cpu(), exact_RD, rtol=0.05, atol=0.2)


@every_kernel
def test_a_row_that_is_not_finite_spoils_no_other_row(device: str, kernel: Kernel) -> None:
    """Not even in `loop`, where a window shows rows of the neighbours."""
    inputs, experts = padded(4, 3, device=device), make_experts(4).to(device)
    clean_RD = by_hand(inputs, experts)
    inputs.rows_RD[4] = torch.nan
    outputs_RD = kernel(inputs, experts.weights, RELU)
    others = torch.arange(12) != 4
    torch.testing.assert_close(outputs_RD.cpu()[others], clean_RD[others], rtol=1e-4, atol=1e-4)
    assert not outputs_RD[4].isfinite().any()


@for_segments
def test_the_weights_of_an_expert_without_rows_are_never_looked_at(device: str, kernel: Kernel) -> None:
    inputs, experts = segments([2, 0, 5, 0], device=device), make_experts(4).to(device)
    expected_RD = by_hand(inputs, experts)
    for parameter in experts.parameters():
        parameter[[1, 3]] = torch.nan
    outputs_RD = kernel(inputs, experts.weights, RELU)
    torch.testing.assert_close(outputs_RD.cpu(), expected_RD, rtol=1e-4, atol=1e-4)


@every_kernel
def test_rows_and_weights_stay_as_they_are(device: str, kernel: Kernel) -> None:
    inputs, experts = padded(3, 2, device=device), make_experts(3).to(device)
    before = [tensor.clone() for tensor in (inputs.rows_RD, *experts.weights.values())]
    kernel(inputs, experts.weights, RELU)
    assert all(torch.equal(now, then) for now, then in zip((inputs.rows_RD, *experts.weights.values()), before, strict=True))


@for_segments
def test_the_same_rows_give_the_same_bits_again(device: str, kernel: Kernel) -> None:
    inputs, experts = segments([3, 0, 7, 1], device=device), make_experts(4).to(device)
    outputs = [kernel(inputs, experts.weights, RELU) for _ in range(2)]
    assert torch.equal(*outputs)
