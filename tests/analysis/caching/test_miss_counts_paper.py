"""The paper's own cases: section 5.2, the scans and the random traces of section 5.6, statements 13 to 17."""

import pytest
from policies.batches import Batches, sticky_batches

from moeprof.analysis.caching.miss_counts import misses
from moeprof.policies.eviction.registry import EVICTION
from tests.analysis.caching.engines import accesses_of

COLD, WARM = 0, 1


def miss_rate(policy: str, slots: int, batches: Batches) -> float:
    """Misses per access once the first batch has filled the cache."""
    accesses = accesses_of(batches, [COLD] + [WARM] * (len(batches) - 1))
    return float(misses(accesses, policy, [slots])[0, WARM] / (accesses.groups_N == WARM).sum())


@pytest.mark.parametrize(
    ("policy", "rate"),
    [
        ("fifo", 1),
        ("lru", 1),
        ("lfu", 1),
        ("lfu-reset", 1),
        ("lifo", 2 / 3),
        ("mru", 1 / 2),
        ("min", 1 / 2),
        ("batch-aware", 1 / 2),
    ],
)
def test_three_active_experts_in_two_slots(policy: str, rate: float) -> None:
    assert miss_rate(policy, 2, [[1, 2, 3]] * 2001) == pytest.approx(rate, abs=1e-3)


@pytest.mark.parametrize("policy", list(EVICTION))
def test_a_first_tier_changes_nothing_where_everybody_is_active(policy: str) -> None:
    scan = [list(range(16))] * 100
    assert miss_rate(f"inactive-first+{policy}", 10, scan) == miss_rate(policy, 10, scan)


@pytest.mark.parametrize(
    ("slots", "lifo", "floor"), [(10, 0.4375, 0.4), (5, 0.75, 11 / 15), (15, 0.125, 1 / 15), (1, 1.0, 1.0)]
)
def test_a_cyclic_scan_of_sixteen(slots: int, lifo: float, floor: float) -> None:
    scan = [list(range(16))] * 2001
    assert (lifo, floor) == (pytest.approx((16 - slots + 1) / 16), pytest.approx((16 - slots) / 15))
    assert miss_rate("fifo", slots, scan) == miss_rate("lru", slots, scan) == 1
    assert miss_rate("lifo", slots, scan) == pytest.approx(lifo, abs=1e-3)
    for policy in ("min", "mru", "batch-aware"):
        assert miss_rate(policy, slots, scan) == pytest.approx(floor, abs=1e-3)


def test_the_first_tier_matters_more_than_its_tail_where_the_active_fit() -> None:
    batches = sticky_batches(num_experts=16, num_active=4, stay=0.9, num_batches=4000)
    tails = [miss_rate(f"inactive-first+{tail}", 4, batches) for tail in ("lifo", "lru", "fifo")]
    assert tails == [pytest.approx(0.088, abs=0.01)] * 3
    assert max(tails) - min(tails) <= 0.05
    assert miss_rate("lru", 4, batches) == pytest.approx(0.126, abs=0.015)
    assert miss_rate("fifo", 4, batches) == pytest.approx(0.178, abs=0.02)
    assert miss_rate("min", 4, batches) == pytest.approx(0.085, abs=0.01)
    assert miss_rate("lifo", 4, batches) > 0.5, "a stack pins whatever was loaded first"


def test_lifo_is_the_tail_to_have_where_more_are_active_than_fit() -> None:
    batches = sticky_batches(num_experts=16, num_active=8, stay=0.9, num_batches=4000)
    assert miss_rate("inactive-first+lifo", 6, batches) == pytest.approx(0.383, abs=0.02)
    assert miss_rate("inactive-first+fifo", 6, batches) == pytest.approx(0.813, abs=0.03)
    assert miss_rate("inactive-first+lru", 6, batches) == pytest.approx(0.986, abs=0.01)
    assert miss_rate("min", 6, batches) == pytest.approx(0.304, abs=0.01)


@pytest.mark.parametrize("stay", [0.5, 0.7, 0.95])
def test_tails_hardly_differ_on_sticky_traces_where_the_active_fit(stay: float) -> None:
    batches = sticky_batches(num_experts=16, num_active=4, stay=stay, num_batches=2000)
    for slots in (4, 6, 8):
        tails = [miss_rate(f"inactive-first+{tail}", slots, batches) for tail in ("lifo", "lru", "fifo")]
        assert max(tails) - min(tails) <= 0.05
