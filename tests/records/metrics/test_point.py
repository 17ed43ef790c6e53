"""A point is the same text however its parts were given, and reads back as them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moeprof.records.metrics.point import ORDER, format_point, parse_point


def test_a_point_stands_in_canonical_order() -> None:
    assert format_point({"slots": 16, "policy": "lru"}) == "policy=lru;slots=16"
    assert format_point({"budget_bytes": 262144000, "policy": "inactive-first+lifo"}) == (
        "policy=inactive-first+lifo;budget_bytes=262144000"
    )
    assert format_point({}) == ""


def test_a_name_that_no_sweep_has_is_refused() -> None:
    with pytest.raises(ValueError, match="'colour' is none of batch, policy"):
        format_point({"colour": "red"})


@given(st.dictionaries(st.sampled_from(ORDER), st.integers(0)))
def test_a_point_reads_back(swept: dict[str, int]) -> None:
    assert parse_point(format_point(swept)) == {name: str(value) for name, value in swept.items()}


def test_what_is_no_pair_is_left_out() -> None:
    assert parse_point("policy=lru;nonsense;slots=16") == {"policy": "lru", "slots": "16"}
    assert parse_point("") == {}
