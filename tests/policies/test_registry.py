"""Policies by name."""

import pytest

from moeprof.policies.eviction.eviction import highest, lowest
from moeprof.policies.eviction.registry import DEFAULT, EVICTION, make_eviction, needs_future
from moeprof.records.errors import UsageError


def test_every_policy_of_the_paper_and_of_the_literature_has_its_name() -> None:
    assert set(EVICTION) == {"lifo", "fifo", "lru", "mru", "lfu", "lfu-reset", "batch-aware", "min", "min-bypass"} | {
        "hot-set",
        "pinned-lru",
        "lfu-aged",
        "least-stale",
    }
    assert all(make_eviction(name).name == name for name in EVICTION)


def test_the_papers_choice_is_the_default() -> None:
    assert DEFAULT == "inactive-first+lifo"
    assert make_eviction(DEFAULT).order == (lowest("active"), highest("inserted"))


@pytest.mark.parametrize("tail", list(EVICTION))
def test_any_policy_can_stand_behind_the_inactive(tail: str) -> None:
    composed = make_eviction(f"inactive-first+{tail}")
    assert composed.name == f"inactive-first+{tail}"
    assert composed.order == (lowest("active"), *EVICTION[tail].order)
    assert composed.may_bypass == EVICTION[tail].may_bypass


def test_only_min_and_hot_sets_need_the_future() -> None:
    assert [name for name in EVICTION if needs_future(name)] == ["min", "min-bypass", "hot-set", "pinned-lru"]
    assert needs_future("inactive-first+min")


def test_what_goes_by_loading_is_no_stack_algorithm() -> None:
    one_by_one = [name for name, eviction in EVICTION.items() if not eviction.one_pass]
    assert one_by_one == ["lifo", "fifo", "lfu-reset", "pinned-lru", "lfu-aged", "least-stale"]
    assert not make_eviction(DEFAULT).one_pass


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lur", "Did you mean 'lru'? "),
        ("LIFO", "Did you mean 'lifo'? "),
        ("inactive-first+lfo", "Did you mean 'inactive-first+lifo'? "),
        ("", ""),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest_and_all(name: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        make_eviction(name)
    assert error.value.what == f"unknown eviction policy {name!r}"
    assert error.value.remedy == f"{hint}Known policies: {', '.join(EVICTION)}, each also as inactive-first+TAIL."


def test_the_inactive_tier_stands_first_only_once() -> None:
    with pytest.raises(UsageError):
        make_eviction("inactive-first+inactive-first+lru")
