"""What a gating costs by its shapes alone: capacity, slots, mask elements (paper sections II and III)."""

import math
from fractions import Fraction


def capacity(capacity_fraction: float, num_tokens: int) -> int:
    """Capacity c = ceil(C x S) of every expert under static gating; S includes padding (fairseq, evaluation).

    C is the decimal number in the recipe, so that C = 0.07 and S = 100 give 7 and not 8.
    """
    return math.ceil(Fraction(repr(capacity_fraction)) * num_tokens)


def expert_slots(num_experts: int, capacity_fraction: float, num_tokens: int) -> int:
    """Capacity slots E x c that one layer computes in one step, independent of the routing."""
    return num_experts * capacity(capacity_fraction, num_tokens)


def mask_elements(num_experts: int, capacity_fraction: float, num_tokens: int) -> int:
    """Elements S x E x c of the dispatch mask, and of the combine weights."""
    return num_tokens * expert_slots(num_experts, capacity_fraction, num_tokens)
