"""The names of regions are part of every file that a run leaves behind."""

from moeprof.records.regions import LAYER_REGIONS, MODEL_REGIONS, OTHER, REGIONS

DESIGN = (
    "gate dispatch a2a_sizes a2a_dispatch expert_load experts shared_experts a2a_combine combine "
    "embed attention cross_attention dense_ffn head other"
)


def test_the_regions_are_those_of_the_design_in_its_order() -> None:
    assert DESIGN.split() == list(REGIONS)


def test_every_region_is_inside_the_layer_or_outside_or_the_remainder() -> None:
    assert (*LAYER_REGIONS, *MODEL_REGIONS, OTHER) == REGIONS
    assert len(set(REGIONS)) == 15
