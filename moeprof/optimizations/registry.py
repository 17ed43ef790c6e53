"""All optimizations, in the order in which they build on each other; a new one is one file and one line here."""

from collections.abc import Iterable, Iterator, Sequence

from moeprof.optimizations.dynamic_gating import DYNAMIC_GATING
from moeprof.optimizations.expert_buffering import EXPERT_BUFFERING
from moeprof.optimizations.load_balancing import LOAD_BALANCING
from moeprof.optimizations.optimization import Optimization, Settings
from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import OWN, STATIC, Variant

OPTIMIZATIONS: dict[str, Optimization] = {
    optimization.name: optimization
    for optimization in (
        DYNAMIC_GATING,
        EXPERT_BUFFERING,
        LOAD_BALANCING,
    )
}


def optimized(names: Sequence[str], settings: Settings, recipe: Recipe, *, alone: bool = False) -> list[Variant]:
    """The variants that the named optimizations, and those that they need, make from static gating, in the registry's order.

    Each builds on the ones before; `alone`: each builds only on those that it needs. UsageError if one is not applicable.
    Those of a Hugging Face model are made from its own backend, each alone, since its experts can be buffered under that.
    """
    if isinstance(recipe.model, HuggingFaceSection):
        return [OPTIMIZATIONS[name].apply(OWN, settings, recipe) for name in applicable(names, recipe)]
    variants: list[Variant] = []
    for name in applicable(with_needs(names), recipe):
        steps = with_needs([name]) if alone else [name]
        variant = STATIC if alone or not variants else variants[-1]
        for step in steps:
            variant = OPTIMIZATIONS[step].apply(variant, settings, recipe)
        variants.append(variant)
    return variants


def applicable(names: Sequence[str], recipe: Recipe) -> list[str]:
    """The names in the registry's order; UsageError if an optimization is not applicable to the recipe."""
    for name in names:
        if why := OPTIMIZATIONS[name].why_not_applicable(recipe):
            raise UsageError(f"--{name}: {why}", "Remove it, or choose another recipe or setting.")
    return [name for name in OPTIMIZATIONS if name in names]


def with_needs(names: Iterable[str]) -> list[str]:
    """The named optimizations and those that they need, in the registry's order."""
    wanted = {need for name in names for need in needed(name)}
    return [name for name in OPTIMIZATIONS if name in wanted]


def needed(name: str) -> Iterator[str]:
    """The optimization and all optimizations that it builds on."""
    yield name
    for need in OPTIMIZATIONS[name].needs:
        yield from needed(need)


def useful(recipe: Recipe) -> tuple[list[str], list[str]]:
    """The optimizations that are applicable to a recipe, and a remark for each of the others."""
    reasons = {name: one.why_not_applicable(recipe) for name, one in OPTIMIZATIONS.items()}
    return (
        [name for name, why in reasons.items() if not why],
        [f"{name} was left out: {why}" for name, why in reasons.items() if why],
    )
