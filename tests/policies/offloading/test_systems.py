"""The parts of an offloading system: how many slots its bytes are."""

import pytest

from moeprof.policies.offloading.planner import HIGH
from moeprof.policies.offloading.systems import capacities
from moeprof.records.errors import UsageError
from moeprof.records.recipe.offloading import parsed

BYTES = {HIGH: 4096 * 8, "int4": 4096 * 2}


def test_the_bytes_of_the_slots_are_divided_among_precisions_and_what_is_left_goes_to_the_next() -> None:
    # 8 slots of 8 pages in each of 2 layers: 128 pages; 0.75 of them hold 12 experts, 0.25 hold 16 packed ones
    assert capacities(parsed("hobbit"), 8, 2, BYTES, most=32) == {HIGH: 12, "int4": 16}
    # 3 slots per layer: 0.7 x 24 pages = 16.8, which hold 2 experts; 8 pages are left, which hold 4 packed ones
    assert capacities(parsed("hobbit:per-layer=yes,shares=.7:.3"), 3, 2, BYTES, most=32) == {HIGH: 2, "int4": 4}
    assert capacities(parsed("hobbit"), 32, 1, BYTES, most=32) == {HIGH: 24, "int4": 32}


def test_a_share_that_holds_no_expert_is_refused() -> None:
    with pytest.raises(UsageError, match="75% of the bytes of 1 slots hold no expert in high precision"):
        capacities(parsed("hobbit:per-layer=yes"), 1, 2, BYTES, most=32)
