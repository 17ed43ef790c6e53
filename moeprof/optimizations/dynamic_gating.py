"""Dynamic gating: experts get exactly the rows of their tokens, without capacity, mask or padding (paper section IV)."""

from dataclasses import replace

from moeprof.optimizations.optimization import Optimization, Option, Settings
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant


def apply(variant: Variant, settings: Settings, recipe: Recipe) -> Variant:
    """The variant with dynamic dispatch and a kernel for segments of any length."""
    return replace(variant, dispatch="dynamic", kernel=str(settings["kernel"]))


DYNAMIC_GATING = Optimization(
    name="dynamic-gating",
    help="Send each expert only its own tokens: no capacity, no mask, no padding, no drops.",
    apply=apply,
    options=(
        Option(
            name="kernel",
            choices=("auto", "loop", "grouped_mm"),
            default="auto",
            help="Expert kernel under dynamic gating; auto takes the cheapest by calibrated cost.",
        ),
    ),
)
