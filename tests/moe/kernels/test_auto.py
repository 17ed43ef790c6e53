"""The kernel that chooses by cost: three costs from three trials, the cheapest by load, and a word about it."""

from dataclasses import dataclass, field
from itertools import cycle, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from moeprof.moe.experts import FFN, ExpertRows, Kernel, make_ffn
from moeprof.moe.kernels.auto import CANDIDATES, REPEATS, Auto, KernelCost, auto, shapes_of
from moeprof.moe.kernels.bmm import bmm
from moeprof.records.ffn.mlp import MLP
from moeprof.store.resident import ExpertWeights

from ..drawn import unhurried
from .rows import DIM, FFN_DIM, by_hand, make_experts, padded, segments

RELU = make_ffn(MLP, "relu")
FLAT, STEEP = KernelCost(100, 0, 1), KernelCost(0, 10, 3)


@dataclass
class Machine:
    """A clock that only its own kernels move; it keeps the loads that they were given."""

    now_ns: int = 0
    readings: int = 0
    trials: list[tuple[int, int]] = field(default_factory=list)
    """Active experts and rows of every call."""

    def clock(self) -> int:
        self.readings += 1
        return self.now_ns

    def kernel(self, cost: KernelCost, late_ns: tuple[int, ...] = (0,)) -> Kernel:
        """A kernel that takes what `cost` says, and some of the time longer."""
        late = cycle(late_ns)

        def run(inputs: ExpertRows, weights: ExpertWeights, ffn: FFN) -> Tensor:
            active = sum(first < last for first, last in pairwise(inputs.bounds))
            self.trials.append((active, len(inputs.rows_RD)))
            self.now_ns += int(cost.of(*self.trials[-1])) + next(late)
            return inputs.rows_RD

        return run


def knowing(experts_shape: tuple[int, int, int] = (4, DIM, FFN_DIM), **costs: KernelCost) -> Auto:
    """One that need not measure experts of this shape; a clock would fail."""
    shapes = shapes_of(make_experts(*experts_shape).weights)
    return Auto(clock=lambda: pytest.fail("the clock was read"), costs={(shapes, torch.float32): costs})


whole_ns = st.integers(0, 10**9)


@unhurried
@given(st.integers(2, 40), whole_ns, whole_ns, whole_ns)
def test_three_trials_give_the_three_costs_exactly(num_experts: int, call: int, expert: int, row: int) -> None:
    machine, cost = Machine(), KernelCost(call, expert, row)
    assert Auto(machine.clock).measured(machine.kernel(cost), make_experts(num_experts).weights, RELU) == cost


def test_the_trials_are_one_row_one_row_of_all_and_many_rows_of_all() -> None:
    machine = Machine()
    Auto(machine.clock).measured(machine.kernel(FLAT), make_experts(5).weights, RELU)
    assert machine.trials == [(1, 1)] * (REPEATS + 1) + [(5, 5)] * (REPEATS + 1) + [(5, 80)] * (REPEATS + 1)


@pytest.mark.parametrize(
    ("late_ns", "counted_ns"),
    [((10**6, 0, 0, 0), 0), ((10**6, 0, 77, 5), 0), ((10**6, 500, 3, 40), 3), ((0, 500, 600, 700), 500)],
)
def test_the_first_of_several_repeats_warms_up_and_the_fastest_of_the_others_counts(
    late_ns: tuple[int, ...], counted_ns: int
) -> None:
    machine, cost = Machine(), KernelCost(1000, 200, 30)
    found = Auto(machine.clock).measured(machine.kernel(cost, late_ns), make_experts(4).weights, RELU)
    assert found == KernelCost(1000 + counted_ns, 200, 30)


def test_with_one_expert_its_cost_is_part_of_the_call() -> None:
    machine = Machine()
    found = Auto(machine.clock).measured(machine.kernel(KernelCost(1000, 200, 30)), make_experts(1).weights, RELU)
    assert found == KernelCost(1200, 0, 30)


def test_noise_makes_no_cost_negative() -> None:
    """A trial of many rows that was faster than one of few."""
    machine = Machine()
    found = Auto(machine.clock).measured(
        machine.kernel(KernelCost(5, 0, 0), (100,) * 8 + (0,) * 4), make_experts(3).weights, RELU
    )
    assert found == KernelCost(105, 0, 0)


@pytest.mark.parametrize(
    ("loads", "name"),
    [
        ([1, 0, 0, 0], "loop"),
        ([45, 0, 0, 0], "loop"),  # 145 of either: the first one wins
        ([46, 0, 0, 0], "grouped_mm"),
        ([11, 11, 11, 11], "grouped_mm"),
        ([7, 7, 7, 7], "loop"),
        ([0, 0, 0, 0], "loop"),
    ],
)
def test_the_cheapest_for_the_load_is_chosen(loads: list[int], name: str) -> None:
    chooser, experts, inputs = knowing(loop=STEEP, grouped_mm=FLAT), make_experts(4), segments(loads)
    rows, active = sum(loads), sum(load > 0 for load in loads)
    assert (10 * active + 3 * rows <= 100 + rows) is (name == "loop")
    torch.testing.assert_close(chooser(inputs, experts.weights, RELU), by_hand(inputs, experts), rtol=1e-4, atol=1e-4)
    assert chooser.chosen == {(shapes_of(experts.weights), name): 1}


def test_a_shape_is_measured_the_first_time_only_and_another_dtype_is_another_shape() -> None:
    machine = Machine()
    chooser, experts, inputs = Auto(machine.clock), make_experts(4, 8, 16), segments([1, 0, 2, 0], 8)
    for _ in range(3):
        chooser(inputs, experts.weights, RELU)
    each = 3 * (REPEATS + 1) * 2 * len(CANDIDATES)
    assert machine.readings == each
    chooser(ExpertRows(inputs.rows_RD.bfloat16(), inputs.offsets), experts.bfloat16().weights, RELU)
    chooser(segments([3, 1], 8), make_experts(2, 8, 16).weights, RELU)
    assert machine.readings == 3 * each
    assert {(tuple(dict(shapes)["w1"]), dtype) for shapes, dtype in chooser.costs} == {
        ((4, 8, 16), torch.float32),
        ((4, 8, 16), torch.bfloat16),
        ((2, 8, 16), torch.float32),
    }


def test_measuring_leaves_the_weights_as_they_are() -> None:
    experts = make_experts(3)
    before = [whole.clone() for whole in experts.weights.values()]
    Auto().calibrated(experts.weights, RELU)
    assert all(torch.equal(now, then) for now, then in zip(experts.weights.values(), before, strict=True))


def test_padded_buffers_go_to_bmm_and_nothing_is_measured() -> None:
    chooser, experts, inputs = knowing(), make_experts(4), padded(4, 3)
    torch.testing.assert_close(chooser(inputs, experts.weights, RELU), bmm(inputs, experts.weights, RELU))
    assert (chooser.chosen, chooser.take_remarks()) == ({}, [])


def test_without_values_the_grouped_product_takes_everything_and_nothing_is_measured() -> None:
    """A stand-in for a GPU, where reading the bounds would stop the host."""
    chooser, experts = knowing(), make_experts(4, 8, 16).bfloat16().to("meta")
    inputs = ExpertRows(
        torch.empty(6, 8, dtype=torch.bfloat16, device="meta"), torch.empty(5, dtype=torch.int32, device="meta")
    )
    assert chooser(inputs, experts.weights, RELU).shape == (6, 8)
    assert chooser.take_remarks() == ["kernel auto took grouped_mm in 1 of 1 calls"]


@pytest.mark.parametrize(("dim", "ffn_dim", "dtype"), [(3, 8, torch.float32), (4, 6, torch.float32), (8, 20, torch.bfloat16)])
def test_experts_of_widths_that_the_grouped_product_refuses_go_to_the_loop(dim: int, ffn_dim: int, dtype: torch.dtype) -> None:
    """torch asks for multiples of 16 bytes."""
    chooser, experts, inputs = knowing(), make_experts(4, dim, ffn_dim), segments([2, 0, 5, 1], dim)
    expected_RD = by_hand(inputs, experts)
    found_RD = chooser(ExpertRows(inputs.rows_RD.to(dtype), inputs.offsets), experts.to(dtype).weights, RELU)
    torch.testing.assert_close(found_RD.float(), expected_RD, rtol=0.05, atol=0.3)
    assert chooser.take_remarks() == ["kernel auto took loop in 1 of 1 calls"]


def test_it_tells_what_it_took_and_why_and_then_forgets() -> None:
    chooser, experts = knowing(loop=STEEP, grouped_mm=FLAT), make_experts(4)
    for loads in ([1, 0, 0, 0], [60, 0, 0, 0], [0, 2, 0, 0]):
        chooser(segments(loads), experts.weights, RELU)
    assert chooser.take_remarks() == [
        "kernel auto took loop in 2 of 3 calls, grouped_mm in 1 of 3 calls (calibrated: "
        "loop 0 ns a call + 10 ns an active expert + 3 ns a row; "
        "grouped_mm 100 ns a call + 0 ns an active expert + 1 ns a row)"
    ]
    assert chooser.take_remarks() == []
    chooser(segments([1, 0, 0, 0]), experts.weights, RELU)
    assert chooser.take_remarks()[0].startswith("kernel auto took loop in 1 of 1 calls (calibrated: ")


def test_every_shape_has_a_sentence_of_its_own() -> None:
    chooser = Auto(Machine().clock)
    for num_experts in (2, 3, 2):
        chooser(segments([1] * num_experts), make_experts(num_experts).weights, RELU)
    assert [sentence.partition(" (")[0] for sentence in chooser.take_remarks()] == [
        "kernel auto took loop in 2 of 2 calls",
        "kernel auto took loop in 1 of 1 calls",
    ]


def test_the_one_in_the_registry_measures_with_the_wall_clock() -> None:
    experts = make_experts(2)
    auto(segments([1, 2]), experts.weights, RELU)
    costs = auto.costs[shapes_of(experts.weights), torch.float32]
    assert costs.keys() == CANDIDATES.keys()
    assert all(cost.of(1, 1) > 0 for cost in costs.values())
