"""The arithmetic of static gating against the paper's own numbers (paper.md sections 3 and 9)."""

import math
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.recipe.gating import capacity, expert_slots, mask_elements

LM = {"num_experts": 512, "capacity_fraction": 0.05}
MT = {"num_experts": 128, "capacity_fraction": 1.0}


def fractions() -> st.SearchStrategy[str]:
    """Capacity fractions in (0, 1] as people write them: up to seven decimals."""
    return st.integers(1, 10**7).map(lambda digits: str(Decimal(digits).scaleb(-7)))


@pytest.mark.parametrize(
    ("model", "num_tokens", "slots_per_expert", "slots", "waste"),
    [
        (LM, 2048, 103, 52_736, 12.875),
        (LM, 4096, 205, 104_960, 12.8125),
        (MT, 512, 512, 65_536, 64.0),
        (MT, 2048, 2048, 262_144, 64.0),
    ],
)
def test_statement_1_and_the_anchor_table_of_section_3(
    model: dict[str, float], num_tokens: int, slots_per_expert: int, slots: int, waste: float
) -> None:
    num_experts, fraction = int(model["num_experts"]), model["capacity_fraction"]
    assert capacity(fraction, num_tokens) == slots_per_expert
    assert expert_slots(num_experts, fraction, num_tokens) == slots
    assert expert_slots(num_experts, fraction, num_tokens) / (2 * num_tokens) == waste  # top-2


@pytest.mark.parametrize(("num_tokens", "elements"), [(2048, 108_003_328), (4096, 429_916_160)])
def test_statement_5_the_dispatch_mask_has_tokens_times_slots_elements(num_tokens: int, elements: int) -> None:
    assert mask_elements(512, 0.05, num_tokens) == elements


def test_statement_5_the_mask_grows_with_the_square_of_the_tokens() -> None:
    sizes = [320 * 2**power for power in range(6)]
    elements = [mask_elements(512, 0.05, num_tokens) for num_tokens in sizes]
    slopes = [math.log2(after / before) for before, after in pairwise(elements)]
    assert slopes == pytest.approx([2.0] * 5, abs=1e-12)


def test_the_capacity_takes_the_fraction_as_it_was_written() -> None:
    assert math.ceil(0.07 * 100) == 8
    assert capacity(0.07, 100) == 7
    assert capacity(0.07, 101) == 8
    assert capacity(1e-05, 100_000) == 1
    assert capacity(1, 17) == 17


def test_any_batch_that_is_not_empty_gets_at_least_one_slot() -> None:
    assert capacity(1e-7, 1) == 1
    assert capacity(0.05, 0) == 0


@given(fractions(), st.integers(1, 10**7), st.integers(1, 1024))
def test_slots_agree_with_decimal_arithmetic(fraction: str, num_tokens: int, num_experts: int) -> None:
    expected = int((Decimal(fraction) * num_tokens).to_integral_value(ROUND_CEILING))
    assert capacity(float(fraction), num_tokens) == expected
    assert expert_slots(num_experts, float(fraction), num_tokens) == num_experts * expected
    assert mask_elements(num_experts, float(fraction), num_tokens) == num_tokens * num_experts * expected


@given(fractions(), st.integers(1, 1024), st.integers(1, 8), st.integers(1, 10**6))
def test_rounding_up_adds_less_than_one_slot_per_expert(fraction: str, num_experts: int, top_k: int, num_tokens: int) -> None:
    exact = float(Decimal(fraction) * num_experts / top_k)
    excess = expert_slots(num_experts, float(fraction), num_tokens) / (top_k * num_tokens) - exact
    assert -1e-9 * exact <= excess <= num_experts / (top_k * num_tokens) + 1e-9 * exact
