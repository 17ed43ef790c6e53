"""What a planner decides holds together: slots are never shared, what is needed is there, and who is spared stays."""

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moeprof.policies.cache import Cache
from moeprof.policies.eviction.registry import make_eviction
from moeprof.policies.offloading.planner import HIGH, SKIP, Demand, Planner, Transfer, Use
from moeprof.policies.offloading.priority import ExpertUnit, Fifo, Lru

LAYERS, EXPERTS = 3, 6
ORDER = (HIGH, "int4")


def planner(high: int, low: int = 0, *, per_layer: bool = True) -> Planner:
    return Planner(LAYERS, {HIGH: high} | ({"int4": low} if low else {}), Lru(), per_layer=per_layer)


def experts(uses: Sequence[Use]) -> list[int]:
    """Those that are loaded."""
    return [use.expert for use in uses if use.transfer is not None]


class Slots:
    """What slots hold if all transfers are carried out, by somebody who knows nothing of the planner's books."""

    def __init__(self) -> None:
        self.contents: dict[tuple[int, str, int], ExpertUnit] = {}

    def load(self, transfer: Transfer, scope: int) -> None:
        place = (scope, transfer.unit.precision, transfer.slot)
        assert self.contents.get(place) == transfer.victim
        self.contents[place] = transfer.unit

    def holds(self, use: Use, scope: int) -> bool:
        assert use.unit is not None
        return self.contents.get((scope, use.unit.precision, use.slot)) == use.unit


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 7), st.booleans())
def test_every_demand_is_served_from_a_slot_that_holds_it_at_its_precision_or_a_higher_one(
    seed: int, high: int, low: int, per_layer: bool
) -> None:
    draw, mine, slots = random.Random(seed), planner(high, low, per_layer=per_layer), Slots()
    for _ in range(20):
        for layer in range(LAYERS):
            chosen = draw.sample(range(EXPERTS), draw.randint(0, EXPERTS))
            demands = [Demand(expert, draw.choice([HIGH, "int4", SKIP])) for expert in chosen]
            uses = mine.step(layer, demands)
            assert [use.expert for use in uses] == chosen
            for use, demand in zip(uses, demands, strict=True):
                if use.transfer is not None:
                    slots.load(use.transfer, layer if per_layer else 0)
                    assert use.unit == ExpertUnit(layer, demand.expert, demand.precision)
                if use.unit is None:
                    assert demand.precision == SKIP
                    continue
                assert slots.holds(use, layer if per_layer else 0)
                assert demand.precision == SKIP or ORDER.index(use.unit.precision) <= ORDER.index(demand.precision)
            target = (layer + 1) % LAYERS
            hinted = [Demand(expert) for expert in draw.sample(range(EXPERTS), 2)]
            busy = {use.unit for use in uses if use.unit}
            for transfer in mine.prefetched(layer, target, hinted, busy):
                assert transfer.victim not in busy
                slots.load(transfer, target if per_layer else 0)
    for (scope, precision), pool in mine.pools.items():
        assert len(pool.slots) + len(pool.free) == pool.capacity == (high if precision == HIGH else low)
        assert all(slots.contents[scope, precision, slot] == unit for unit, slot in pool.slots.items())


@given(st.lists(st.integers(0, EXPERTS - 1), max_size=80), st.integers(1, EXPERTS))
def test_steps_of_one_expert_hit_and_miss_as_in_the_cache_of_a_replay(accesses: list[int], slots: int) -> None:
    mine, cache = planner(slots), Cache(slots, make_eviction("lru"))
    for expert in accesses:
        (use,), (access,) = mine.step(0, [Demand(expert)]), cache.batch([expert])
        assert use.hit == access.hit
        assert [-1] * (not access.hit) == [-1] * (use.transfer is not None)
        if use.transfer is not None and use.transfer.victim is not None:
            assert use.transfer.victim.expert == access.victim


def test_a_resident_expert_of_higher_precision_serves_a_lower_demand_and_not_the_other_way_round() -> None:
    mine = planner(2, 2)
    mine.step(0, [Demand(0, HIGH), Demand(1, "int4")])
    served, loaded = mine.step(0, [Demand(0, "int4"), Demand(1, HIGH)])
    assert (served.unit, served.hit) == (ExpertUnit(0, 0, HIGH), True)
    assert (loaded.unit, loaded.hit) == (ExpertUnit(0, 1, HIGH), False)


def test_an_expert_that_is_not_worth_loading_is_used_if_it_is_there_and_skipped_otherwise() -> None:
    mine = planner(2, 2)
    mine.step(0, [Demand(0, "int4")])
    there, absent = mine.step(0, [Demand(0, SKIP), Demand(1, SKIP)])
    assert there.unit == ExpertUnit(0, 0, "int4")
    assert absent.unit is None
    assert not absent.hit


def test_an_expert_that_the_step_still_needs_is_not_evicted_as_long_as_another_can_be() -> None:
    mine = planner(3)
    mine.step(0, [Demand(0), Demand(1), Demand(2)])
    uses = mine.step(0, [Demand(3), Demand(0)])  # 0 is the least recent, but is needed
    assert uses[0].transfer is not None
    assert uses[0].transfer.victim == ExpertUnit(0, 1)
    assert uses[1].hit


def test_more_experts_than_slots_follow_each_other_through_the_slots() -> None:
    uses = planner(2).step(0, [Demand(expert) for expert in range(5)])
    victims = [use.transfer.victim for use in uses if use.transfer is not None]
    assert victims == [None, None, ExpertUnit(0, 0), ExpertUnit(0, 1), ExpertUnit(0, 2)]


def test_spared_units_leave_only_if_no_other_is_left() -> None:
    mine = planner(2, per_layer=False)
    mine.step(0, [Demand(0), Demand(1)])
    first = mine.step(1, [Demand(4)], spared={ExpertUnit(0, 0)})
    second = mine.step(1, [Demand(5)], spared={ExpertUnit(0, 0), ExpertUnit(1, 4)})
    assert [use.transfer.victim for use in [*first, *second] if use.transfer] == [ExpertUnit(0, 1), ExpertUnit(0, 0)]


def test_a_prefetch_gives_up_if_only_kept_units_could_leave() -> None:
    mine = planner(2, per_layer=False)
    busy = {use.unit for use in mine.step(0, [Demand(0), Demand(1)]) if use.unit}
    assert mine.prefetched(0, 1, [Demand(3)], busy) == []
    (transfer,) = mine.prefetched(0, 1, [Demand(3), Demand(4)], busy - {ExpertUnit(0, 1)})
    assert transfer == Transfer(ExpertUnit(1, 3), 1 - mine.pools[0, HIGH].slots[ExpertUnit(0, 0)], ExpertUnit(0, 1))


def test_layers_that_share_a_pool_use_the_slots_of_each_other() -> None:
    shared, apart = planner(LAYERS, per_layer=False), planner(1)
    for mine, loads in ((shared, [3, 0]), (apart, [3, 3])):
        for expected in loads:
            hot = [mine.step(0, [Demand(expert) for expert in (0, 1, 2)])]
            assert len(experts(hot[0])) == expected


def test_a_new_sequence_keeps_what_is_resident_and_a_cleared_planner_does_not() -> None:
    mine = Planner(LAYERS, {HIGH: 2}, Fifo(), per_layer=True)
    mine.step(0, [Demand(0)])
    mine.begin_sequence()
    assert mine.step(0, [Demand(0)])[0].hit
    mine.clear()
    assert not mine.step(0, [Demand(0)])[0].hit


@pytest.mark.parametrize("capacities", [{HIGH: 0}, {"int4": 2}, {HIGH: 2, "int4": 0}])
def test_a_precision_without_slots_is_refused(capacities: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="each precision needs at least one"):
        Planner(1, capacities, Lru(), per_layer=True)
