"""A variant's label names its rows in every table."""

import dataclasses

import pytest

from moeprof.records.recipe.variant import DENSE, STATIC, Variant


@pytest.mark.parametrize(
    ("variant", "label"),
    [
        (Variant(), "static"),
        (Variant(dispatch="dynamic"), "dynamic"),
        (Variant(dispatch="dynamic", kernel="grouped_mm"), "dynamic+grouped_mm"),
        (Variant(dispatch="tutel", placement="greedy"), "tutel+greedy"),
        (Variant("dynamic", "loop", "buffered", "greedy"), "dynamic+loop+buffered+greedy"),
        (Variant(dense=True), "dense"),
        (Variant("dynamic", "loop", dense=True), "dense"),
    ],
)
def test_the_label_names_the_dispatch_and_what_differs_from_the_default(variant: Variant, label: str) -> None:
    assert variant.label == label


def test_the_two_variants_of_a_characterization_are_static_gating_and_the_dense_twin() -> None:
    assert (STATIC.label, STATIC.kernel, STATIC.store, STATIC.placement) == ("static", "auto", "resident", "contiguous")
    assert DENSE.label == "dense"


def test_equal_choices_are_equal_variants_and_cannot_be_changed() -> None:
    assert Variant("dynamic") == Variant("dynamic")
    assert len({Variant("dynamic"), Variant("dynamic"), STATIC}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        STATIC.dispatch = "dynamic"  # type: ignore[misc]
