"""Sizes of packed matrices, by hand."""

import pytest

from moeprof.records.precision import PRECISIONS, Precision


def test_the_precisions_are_named_after_their_bits_the_most_accurate_first() -> None:
    assert [(name, precision.name, precision.bits) for name, precision in PRECISIONS.items()] == [
        ("int8", "int8", 8),
        ("int4", "int4", 4),
        ("int2", "int2", 2),
    ]


def test_a_weight_costs_its_bits_and_its_share_of_the_scale() -> None:
    """16 bits over 64, 32 and 64 rows."""
    assert [precision.bits_per_weight for precision in PRECISIONS.values()] == [8.25, 4.5, 2.25]


def test_levels_lie_symmetrically_around_zero() -> None:
    assert [precision.top for precision in PRECISIONS.values()] == [127.5, 7.5, 1.5]


@pytest.mark.parametrize(
    ("bits", "group", "rows", "packed_rows", "groups"),
    [
        (8, 32, 0, 0, 0),
        (8, 32, 33, 33, 2),
        (4, 32, 64, 32, 2),
        (4, 32, 65, 33, 3),  # 16 + 16 + 1
        (4, 32, 35, 18, 2),  # 16 + 2
        (2, 32, 35, 9, 2),  # 8 + 1
        (2, 4, 7, 2, 2),
        (2, 4, 1, 1, 1),
    ],
)
def test_bytes_are_not_shared_by_groups(bits: int, group: int, rows: int, packed_rows: int, groups: int) -> None:
    precision = Precision("any", bits, group)
    assert precision.packed_rows(rows) == packed_rows
    assert precision.num_groups(rows) == groups


@pytest.mark.parametrize(
    ("bits", "group", "fractions"), [(3, 32, (1.0,)), (16, 32, (1.0,)), (2, 6, (1.0,)), (4, 0, (1.0,)), (4, 32, (0.9, 1.0))]
)
def test_what_cannot_be_packed_is_no_precision(bits: int, group: int, fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be packed"):
        Precision("any", bits, group, fractions)
