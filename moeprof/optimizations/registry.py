"""The optimizations in the order in which they build on each other; a new one is one file and one line here."""

from collections.abc import Mapping, Sequence

from moeprof.optimizations.dynamic_gating import DYNAMIC_GATING
from moeprof.optimizations.optimization import Optimization
from moeprof.records.variant import STATIC, Variant

OPTIMIZATIONS: dict[str, Optimization] = {optimization.name: optimization for optimization in (DYNAMIC_GATING,)}


def optimized(names: Sequence[str], settings: Mapping[str, str], *, alone: bool = False) -> list[Variant]:
    """The variants that the named optimizations make of static gating: each on top of the ones before, or each by itself."""
    variants: list[Variant] = []
    for optimization in (OPTIMIZATIONS[name] for name in OPTIMIZATIONS if name in names):
        before = variants[-1] if variants and not alone else STATIC
        variants.append(optimization.apply(before, settings))
    return variants
