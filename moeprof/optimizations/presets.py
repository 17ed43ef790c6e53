"""Offloading systems as alternatives to each other: each runs by itself on top of dynamic gating, all with the same fast memory."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from moeprof.optimizations.dynamic_gating import DYNAMIC_GATING
from moeprof.optimizations.expert_buffering import EXPERT_BUFFERING, host_bytes_of, slots_of
from moeprof.optimizations.optimization import Settings
from moeprof.records.errors import UsageError
from moeprof.records.name import MAX_LENGTH, valid_name
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.offloading import PAPER, PRESETS, Offloading, system_of
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import OWN, STATIC, Variant

NAMES = (PAPER, *PRESETS)


def resident_variant(settings: Settings, recipe: Recipe) -> Variant:
    """Dynamic gating with all experts in fast memory: what the outputs of every system are compared with."""
    deployed = OWN if isinstance(recipe.model, HuggingFaceSection) else STATIC
    return DYNAMIC_GATING.apply(deployed, settings, recipe)


def preset_variants(texts: Sequence[str], settings: Settings, recipe: Recipe) -> list[Variant]:
    """A variant for each of the presets; UsageError if one is not known or cannot run on the recipe."""
    if recipe.parallel.ranks > 1:
        raise UsageError("--presets: an offloading system runs on one rank", "Use --ranks 1.")
    if why := EXPERT_BUFFERING.why_not_applicable(recipe):
        raise UsageError(f"--presets: {why}", "Choose another recipe or setting.")
    resident = resident_variant(settings, recipe)
    variants = [preset_variant(text, resident, settings, recipe) for text in dict.fromkeys(texts)]
    if settings.get("predictor") and not any(variant.predictor for variant in variants):
        raise UsageError(
            f"--predictor {settings['predictor']}: no preset asks a predictor",
            "Add sida to --presets, or leave the option out.",
        )
    return variants


def preset_variant(text: str, resident: Variant, settings: Settings, recipe: Recipe) -> Variant:
    """The variant of one preset, `NAME` or `NAME:KEY=VALUE,...`."""
    choice, buffered = system_of(text), str(settings["buffer"])
    if choice is None:
        return EXPERT_BUFFERING.apply(resident, settings, recipe)
    if choice.cold and isinstance(recipe.model, HuggingFaceSection):
        what = f"preset {text}: a second process computes experts of moeprof's own models only"
        raise UsageError(what, "Leave it out, or choose a recipe such as lm-tiny.")
    if choice.fits:
        what = f"preset {text}: weights are fitted on a recorded trace"
        raise UsageError(what, f"Use moeprof replay RUN --preset {text}, and give the weights that it prints.")
    if not recipe.model.moe_layers_of(buffered):
        raise UsageError(f"--buffer {buffered}: the {buffered} of {recipe.name} has no MoE layer", "Use --buffer all.")
    variant = replace(
        resident,
        store=text,
        system=choice.text,
        slots=slots_of(settings, recipe, buffered),
        host_bytes=host_bytes_of(settings, recipe, buffered),
        eviction=choice.eviction,
        buffered=buffered,
    )
    if choice.foresight == "predictor":
        variant = asking(variant, choice, settings, recipe)
    if not valid_name(variant.label):
        raise UsageError(
            f"--preset {text}: its name would be longer than {MAX_LENGTH} characters", "Change fewer settings at once."
        )
    return variant


def asking(variant: Variant, choice: Offloading, settings: Settings, recipe: Recipe) -> Variant:
    """The variant with the predictor that it asks; UsageError if there is none, or if it cannot do what the preset wants."""
    from moeprof.predictors.predictor import ExpertPredictor

    text = variant.store
    if not settings.get("predictor"):
        fit = f"Fit one: moeprof fit-predictor {recipe.name} --out sida.safetensors; then add --predictor sida.safetensors."
        raise UsageError(f"preset {text}: it asks a predictor, and --predictor names none", fit)
    if choice.bypass and isinstance(recipe.model, HuggingFaceSection):
        what = f"preset {text}: a predictor replaces the routers of moeprof's own models only"
        raise UsageError(what, "Use mode=exact, or choose a recipe such as lm-tiny.")
    path = Path(str(settings["predictor"]))
    return replace(variant, predictor=str(path), predictor_bytes=ExpertPredictor.open(path, recipe).num_bytes)


def premises(variants: Sequence[Variant], recipe: Recipe) -> Iterator[str]:
    """Why a system does nothing of its own on a model."""
    for variant in variants:
        if variant.offloading is not None and (unmet := variant.offloading.unmet(variant.store, recipe.gating.top_k)):
            yield unmet
