"""Predictions from earlier steps: the last step's experts, the most used ones, whole layers, and their placebo."""

from hypothesis import given
from hypothesis import strategies as st

from moeprof.policies.offloading.foresight import LastStep, MostUsed, Shuffled, WholeLayers, derangement, following
from moeprof.policies.offloading.planner import HIGH, Demand


def of(*experts: int) -> list[Demand]:
    return [Demand(expert) for expert in experts]


def test_after_the_last_layer_comes_the_first_of_the_next_step_and_no_layer_comes_twice() -> None:
    assert list(following(0, 3, 1)) == [1]
    assert list(following(2, 3, 2)) == [0, 1]
    assert list(following(1, 3, 9)) == [2, 0]
    assert list(following(0, 1, 1)) == []


def test_the_last_step_is_repeated() -> None:
    told = LastStep(2)
    assert list(told.hints(0, of(1, 2))) == [(1, [])]
    assert list(told.hints(1, of(5))) == [(0, of(1, 2))]
    assert list(told.hints(0, of(3))) == [(1, of(5))]
    assert list(told.hints(1, of(5))) == [(0, of(3))]


def test_the_most_used_are_as_many_as_the_step_uses_ties_to_the_lowest_id() -> None:
    told = MostUsed(2)
    for experts in ((4, 7), (7, 9), (2,)):
        list(told.hints(1, of(*experts)))
    assert list(told.hints(0, of(0, 1))) == [(1, of(7, 2))]
    assert list(told.hints(0, of(0))) == [(1, of(7))]


def test_whole_layers_are_foreseen_at_the_lowest_precision() -> None:
    told = WholeLayers(3, 2, [2, 2, 3], "int4")
    assert list(told.hints(0, of(1))) == [
        (1, [Demand(0, "int4"), Demand(1, "int4")]),
        (2, [Demand(0, "int4"), Demand(1, "int4"), Demand(2, "int4")]),
    ]


@given(st.integers(2, 40), st.integers(0, 99))
def test_the_placebo_names_as_many_experts_and_never_the_one_that_was_predicted(count: int, seed: int) -> None:
    mapping = derangement(count, seed)
    assert sorted(mapping) == list(range(count))
    assert all(one != other for one, other in enumerate(mapping))


def test_the_placebo_changes_ids_only() -> None:
    told = Shuffled(LastStep(2), [4, 4])
    list(told.hints(1, [Demand(0, HIGH), Demand(3, "int4")]))
    ((target, hinted),) = told.hints(0, of(1))
    assert target == 1
    assert [one.precision for one in hinted] == [HIGH, "int4"]
    assert [one.expert for one in hinted] == [told.mapping[1][0], told.mapping[1][3]]
