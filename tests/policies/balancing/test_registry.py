"""Balancers by name, and clusters that they refuse."""

import numpy as np
import pytest

from moeprof.policies.balancing.balancer import Cluster, History
from moeprof.policies.balancing.registry import BALANCERS, find_balancer, placed, replicating
from moeprof.records.errors import UsageError
from tests.policies.balancing.loads import COPYING, PLAIN


def refused(name: str, experts: int, cluster: Cluster) -> UsageError:
    with pytest.raises(UsageError) as caught:
        placed(name, History.of_totals(np.ones(experts)), cluster)
    return caught.value


def test_every_balancer_has_its_name() -> None:
    assert list(BALANCERS) == [*PLAIN, *COPYING]
    assert replicating() == COPYING
    assert [name for name, balancer in BALANCERS.items() if balancer.by_node] == ["eplb-hierarchical"]
    assert [name for name, balancer in BALANCERS.items() if not balancer.repeats] == ["eplb-distinct", "mean-square-copies"]


def test_an_unknown_name_is_answered_with_the_nearest_and_all() -> None:
    with pytest.raises(UsageError) as caught:
        find_balancer("greedly")
    assert caught.value.what == "unknown balancer 'greedly'"
    assert caught.value.remedy == f"Did you mean 'greedy'? Known: {', '.join(BALANCERS)}."


@pytest.mark.parametrize("name", PLAIN)
def test_experts_that_do_not_divide_over_devices_need_copies(name: str) -> None:
    error = refused(name, 8, Cluster(3, 3))
    assert error.what == f"{name}: 8 experts do not fill 3 devices with 3 slots each, and it makes no replicas"
    assert error.remedy.startswith("Use a number of devices that divides 8, or a balancer that replicates: eplb,")
    assert placed("eplb", History.of_totals(np.ones(8)), Cluster(3, 3)).shape == (3, 3)


@pytest.mark.parametrize("name", list(BALANCERS))
def test_every_expert_needs_a_slot(name: str) -> None:
    assert refused(name, 8, Cluster(2, 3)).what == f"{name}: 2 devices with 3 slots each cannot hold 8 experts"
    refused(name, 8, Cluster(0, 8))


def test_more_copies_than_devices_can_tell_apart_are_refused_or_doubled() -> None:
    assert refused("eplb-distinct", 4, Cluster(2, 5)).what == (
        "eplb-distinct: 5 slots per device, but only 4 different experts"
    )
    assert placed("eplb", History.of_totals(np.ones(4)), Cluster(2, 5)).shape == (2, 5)


@pytest.mark.parametrize("name", list(BALANCERS))
def test_devices_divide_over_nodes(name: str) -> None:
    assert refused(name, 8, Cluster(4, 2, 3)).what == "4 devices do not divide over 3 nodes"


def test_groups_divide_over_nodes() -> None:
    assert "12 experts as 5 groups" in refused("eplb-hierarchical", 12, Cluster(4, 3, 2, 5)).what
    assert "12 experts as 3 groups do not divide over 2 nodes" in refused("eplb-hierarchical", 12, Cluster(4, 3, 2, 3)).what
    assert "9 experts do not divide over 2 nodes" in refused("eplb-hierarchical", 9, Cluster(4, 3, 2)).what


@pytest.mark.parametrize("name", BALANCERS)
def test_a_fixed_balancer_is_one_that_loads_do_not_influence(name: str) -> None:
    cluster = Cluster(2, 4 + BALANCERS[name].replicates)
    rising, falling = (
        placed(name, History.of_totals(weights), cluster) for weights in (range(1, 9), [90, 30, 9, 5, 4, 3, 2, 1])
    )
    assert BALANCERS[name].fixed == np.array_equal(rising, falling)
