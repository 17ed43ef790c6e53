"""What each way of dispatching hands over and allocates, on shapes alone: the paper's numbers, and how they grow."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from moeprof.instrument.memory import Allocations, MemoryTracker, key_of
from moeprof.instrument.probe import region
from moeprof.moe.dispatch import Dispatched, dispatch_function, dynamic, static, tutel
from moeprof.moe.routing import Routing
from moeprof.records.recipe.dispatch import DISPATCHES
from moeprof.records.recipe.gating import capacity

LM, MT = (512, 0.05), (128, 1.0)
SIZES = [320 * 2**power for power in range(6)]


def routing_of(num_tokens: int, num_experts: int) -> Routing:
    """Top-2 decisions that have a shape and no values."""
    with torch.device("meta"):
        return Routing(torch.zeros(num_tokens, 2, dtype=torch.int64), torch.zeros(num_tokens, 2), None, num_experts)


def dispatched_by(name: str, num_tokens: int, num_experts: int, fraction: float, dim: int = 1024) -> Dispatched:
    """In 16 bits."""
    x_TD = torch.zeros(num_tokens, dim, dtype=torch.bfloat16, device="meta")
    return dispatch_function(name)(x_TD, routing_of(num_tokens, num_experts), fraction)


def slope(sizes_bytes: list[int]) -> float:
    """Of the bytes over SIZES, both as logarithms."""
    return float(np.polyfit(np.log(SIZES), np.log(sizes_bytes), 1)[0])


def test_the_registry_names_the_dispatches() -> None:
    assert {name: dispatch_function(name) for name in DISPATCHES} == {
        "static": static.dispatch,
        "tutel": tutel.dispatch,
        "tutel-dropless": tutel.dispatch_dropless,
        "dynamic": dynamic.dispatch,
    }


@pytest.mark.parametrize("name", ["static", "tutel"])
@pytest.mark.parametrize(
    ("shape", "num_tokens", "slots", "waste"),
    [
        (LM, 2048, 52_736, 12.875),
        (LM, 4096, 104_960, 12.8125),
        (MT, 512, 65_536, 64.0),
        (MT, 2048, 262_144, 64.0),
    ],
)
def test_statement_1_rows_sent_over_rows_needed_are_the_papers_waste(
    name: str, shape: tuple[int, float], num_tokens: int, slots: int, waste: float
) -> None:
    assert len(dispatched_by(name, num_tokens, *shape).rows.rows_RD) == slots
    assert slots / (2 * num_tokens) == waste


@pytest.mark.parametrize("shape", [LM, MT])
@pytest.mark.parametrize("num_tokens", [1, 48, 2048])
def test_statement_1_dynamic_gating_wastes_nothing(shape: tuple[int, float], num_tokens: int) -> None:
    assert len(dispatched_by("dynamic", num_tokens, *shape).rows.rows_RD) == 2 * num_tokens


def test_statement_2_padding_is_no_row_of_dynamic_gating_and_counts_for_the_slots_of_static() -> None:
    """300 of 2048 rows are tokens; known beforehand, so that nobody looks."""
    x_TD = torch.zeros(2048, 8, device="meta")
    real_T = torch.zeros(2048, dtype=torch.bool, device="meta")
    padded = replace(routing_of(2048, 512), real_T=real_T, known_real=300)
    assert len(dynamic.dispatch(x_TD, padded, 0.05).rows.rows_RD) == 600
    assert len(static.dispatch(x_TD, padded, 0.05).rows.rows_RD) == 52_736


@pytest.mark.parametrize("name", ["static", "tutel"])
def test_statement_9_doubling_the_capacity_fraction_doubles_the_rows_of_static_and_tutel(name: str) -> None:
    once, twice = (len(dispatched_by(name, 640, 512, fraction).rows.rows_RD) for fraction in (0.05, 0.1))
    assert (once, twice) == (16_384, 32_768)


def test_statement_9_doubling_the_capacity_fraction_leaves_the_rows_of_dynamic_gating_alone() -> None:
    assert [len(dispatched_by("dynamic", 640, 512, fraction).rows.rows_RD) for fraction in (0.05, 0.1)] == [1280, 1280]


def masks_bytes(num_tokens: int) -> list[int]:
    """Of the dispatch mask and the combine weights of the paper's LM layer: all with an element for every token and slot."""
    shape = (num_tokens, 512 * capacity(0.05, num_tokens))
    found: dict[int, int] = {}
    with Allocations(lambda outputs, _: found.update((key_of(o), o.nbytes) for o in outputs if o.shape == shape)):
        dispatched_by("static", num_tokens, *LM)
    return list(found.values())


@pytest.mark.parametrize(("num_tokens", "elements"), [(2048, 108_003_328), (4096, 429_916_160)])
def test_statement_5_mask_and_weights_have_tokens_times_slots_elements(num_tokens: int, elements: int) -> None:
    assert masks_bytes(num_tokens) == [2 * elements] * 2


def test_statement_5_the_mask_grows_with_the_square_of_the_tokens() -> None:
    assert slope([masks_bytes(size)[0] for size in SIZES]) == pytest.approx(2.0, abs=0.02)


def dispatch_bytes(name: str, num_tokens: int) -> int:
    """Most bytes live at once while the paper's LM layer dispatches; the tokens themselves are left out."""
    x_TD = torch.zeros(num_tokens, 1024, dtype=torch.bfloat16, device="meta")
    routing = routing_of(num_tokens, 512)
    tracker = MemoryTracker(nn.Linear(1, 1, device="meta"))
    with torch.inference_mode(), tracker.observing(), region("dispatch", "1"):
        dispatch_function(name)(x_TD, routing, 0.05)
    return tracker.bytes.by_category["dispatch_buffers"]


def test_statement_5_what_dynamic_gating_allocates_grows_with_the_tokens() -> None:
    assert slope([dispatch_bytes("dynamic", size) for size in SIZES]) == pytest.approx(1.0, abs=0.02)


def test_statement_5_what_static_gating_allocates_outgrows_the_tokens() -> None:
    """Masks with the square, beside rows in proportion."""
    static_bytes, dynamic_bytes = ([dispatch_bytes(name, size) for size in SIZES] for name in ("static", "dynamic"))
    ratios = [one / other for one, other in zip(static_bytes, dynamic_bytes, strict=True)]
    assert ratios == sorted(ratios)
    assert (ratios[0], ratios[-1]) == pytest.approx((20, 263), abs=1)


def test_without_the_mask_tutel_allocates_in_proportion_to_the_tokens_but_the_waste_stays() -> None:
    sizes_bytes = [dispatch_bytes("tutel", size) for size in SIZES]
    assert slope(sizes_bytes) == pytest.approx(1.0, abs=0.02)
    assert sizes_bytes[3] / dispatch_bytes("dynamic", SIZES[3]) == pytest.approx(12.8, rel=0.05)
