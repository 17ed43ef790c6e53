"""Dynamic gating: experts get the rows of their own tokens, without capacity, mask or padding (paper section IV)."""

from collections.abc import Mapping
from dataclasses import replace

from moeprof.optimizations.optimization import Optimization, Option
from moeprof.records.variant import Variant


def apply(variant: Variant, settings: Mapping[str, str]) -> Variant:
    """The variant with dynamic dispatch and a kernel for segments."""
    return replace(variant, dispatch="dynamic", kernel=settings["kernel"])


DYNAMIC_GATING = Optimization(
    name="dynamic-gating",
    help="Send experts their own tokens only: no capacity, no mask, no padding, no drop.",
    apply=apply,
    options=(
        Option(
            name="kernel",
            choices=("auto", "loop", "grouped_mm"),
            default="auto",
            help="How experts compute under dynamic gating; auto takes the cheapest by calibrated cost.",
        ),
    ),
)
