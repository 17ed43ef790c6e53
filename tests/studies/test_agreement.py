"""Ranks that were asked for different things find it out, all of them, before anything is allocated."""

from collections.abc import Callable
from pathlib import Path

import pytest
from parallel.ranks import over_ranks

from moeprof.parallel.group import ALONE, Group
from moeprof.records.errors import UsageError
from moeprof.records.recipe.files import load_recipe
from moeprof.records.run.run import Environment, RunRecord
from moeprof.studies.agreement import agree


def record_of(path: Path, *overrides: str, torch: str = "2.13.0", **changed: object) -> RunRecord:
    environment = Environment(python="3.12.1", packages={"torch": torch})
    return RunRecord(command="optimize", recipe=load_recipe(str(path), overrides), environment=environment).model_copy(
        update=changed
    )


def heard(group: Group, records: list[RunRecord]) -> tuple[str, list[str]]:
    """The refusal, or the remarks."""
    try:
        return "", agree(group, records[group.rank])
    except UsageError as error:
        return error.what, []


@pytest.mark.parametrize(
    ("overrides", "changed", "what"),
    [
        (["load.batch_size=5"], {}, "rank 1 has load.batch_size 5, rank 0 has 2"),
        (["gating.capacity_fraction=0.25"], {}, "rank 1 has gating.capacity_fraction 0.25, rank 0 has 0.5"),
        ([], {"command": "characterize"}, "rank 1 has command characterize, rank 0 has optimize"),
        ([], {"weights_hash": "ab"}, "rank 1 has weights_hash ab, rank 0 has "),
        ([], {"text_hashes": {"prose": "cd"}}, "rank 1 has text_hashes.prose cd, rank 0 has none"),
        ([], {"variants": [{"label": "tutel"}]}, "rank 1 has variants [{'label': 'tutel'}], rank 0 has []"),
    ],
)
def test_every_rank_hears_the_first_thing_that_differs(
    micro: Callable[[str], Path], overrides: list[str], changed: dict[str, object], what: str
) -> None:
    records = [record_of(micro("lm")), record_of(micro("lm"), *overrides, **changed)]
    assert over_ranks(2, heard, records) == [(what, []), (what, [])]


def test_other_libraries_are_said_and_no_reason_to_stop(micro: Callable[[str], Path]) -> None:
    records = [record_of(micro("lm")), record_of(micro("lm"), torch="2.12.0"), record_of(micro("lm"))]
    remark = "libraries differ: rank 1 has torch 2.12.0, rank 0 has 2.13.0"
    assert over_ranks(3, heard, records) == [("", [remark])] * 3


def test_alone_a_rank_agrees_with_itself(micro: Callable[[str], Path]) -> None:
    assert agree(ALONE, record_of(micro("lm"))) == []
