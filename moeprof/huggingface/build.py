"""Builds the model of a recipe from its checkpoint folder."""

from collections.abc import Collection
from dataclasses import replace

from moeprof.huggingface.buffers import FromShards, ModelBuffers, from_parameters
from moeprof.huggingface.description import options_of
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.layer import experts_layers
from moeprof.huggingface.loading import chosen, load_model, load_resident, skeleton
from moeprof.huggingface.model import HuggingFaceModel
from moeprof.huggingface.sites import find_sites
from moeprof.moe.layer import use_variant
from moeprof.records.recipe.model import HuggingFaceSection
from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import OWN, Variant
from moeprof.records.recipe.weights import weights_hash


def build_model(recipe: Recipe, section: HuggingFaceSection, variants: Collection[Variant]) -> HuggingFaceModel:
    """The model with its weights, on the recipe's device; if all variants keep all experts in slots, without those.

    UsageError if its experts cannot be executed as one of the variants says.
    """
    folder, options = open_folder(section.huggingface), options_of(section, recipe.measure.device)
    everywhere = set(recipe.model.moe_layers_of("all"))
    if all(set(recipe.buffered_layers(variant)) == everywhere for variant in variants):
        whole, shards = load_resident(folder, options)
        sites = find_sites(whole)
        layers = experts_layers(sites, recipe.gating.capacity_fraction)
        return HuggingFaceModel(whole, sites, layers, FromShards(layers, shards))
    whole = load_model(folder, options)
    sites = find_sites(whole)
    changed = any(variant != OWN for variant in variants)
    return HuggingFaceModel(whole, sites, experts_layers(sites, recipe.gating.capacity_fraction) if changed else None)


def check_experts(recipe: Recipe, section: HuggingFaceSection, variants: Collection[Variant]) -> None:
    """UsageError if the experts cannot be computed by the chosen backend, or executed as one of the variants says; no weight is read."""
    changed = [variant for variant in variants if variant != OWN and not variant.dense]
    if not changed and section.experts_backend == "keep":
        return
    folder, options = open_folder(section.huggingface), options_of(section, recipe.measure.device)
    sites = find_sites(chosen(skeleton(folder, options), folder, options))
    if changed:
        layers = experts_layers(sites)
        for variant in changed:
            use_variant(layers, variant)


def build_twin(recipe: Recipe, section: HuggingFaceSection) -> HuggingFaceModel:
    """The dense model that the section names."""
    assert section.dense_twin is not None
    options = replace(options_of(section, recipe.measure.device), experts_backend="keep")
    return HuggingFaceModel(load_model(open_folder(section.dense_twin), options), [])


def buffers_of(model: HuggingFaceModel, recipe: Recipe) -> ModelBuffers:
    """The cache slots of the buffered variants, filled from the parameters, or from the shards if the experts were not loaded."""
    assert model.layers is not None
    fill = model.fill or from_parameters(model.layers)
    digest = weights_hash(recipe) if isinstance(fill, FromShards) and fill.why_file else ""
    return ModelBuffers(model.layers, recipe.buffered_layers, fill, device=recipe.measure.device, file_hash=digest)
