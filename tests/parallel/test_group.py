"""Who a process is among the ranks, as its launcher says."""

import pytest

from moeprof.parallel.group import ALONE, Group, group_in
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.studies.feasibility import check_ranks


def test_without_a_launcher_a_process_is_alone() -> None:
    assert group_in({}) == ALONE == Group(0, 1, 1)
    assert ALONE.alone
    assert ALONE.first


def test_torchrun_says_who_a_process_is() -> None:
    group = group_in({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"})
    assert group == Group(5, 8, 4)
    assert not group.alone
    assert not group.first


@pytest.mark.parametrize(("asked", "started"), [(1, 2), (4, 2), (2, 1)])
def test_a_recipe_for_another_number_of_ranks_is_refused(asked: int, started: int) -> None:
    recipe = load_recipe("lm-tiny", [f"parallel.ranks={asked}"])
    with pytest.raises(UsageError) as caught:
        check_ranks(recipe, Group(0, started))
    assert caught.value.what == f"recipe lm-tiny: {asked} ranks requested, but {started} started"
    check_ranks(recipe, Group(0, asked))
