"""Builds the model of a recipe from its checkpoint folder."""

from dataclasses import replace

from moeprof.huggingface.description import options_of
from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.loading import load_model
from moeprof.huggingface.model import HuggingFaceModel
from moeprof.huggingface.sites import find_sites
from moeprof.records.recipe.model import HuggingFaceSection


def build_model(section: HuggingFaceSection, device: str, *, dense: bool = False) -> HuggingFaceModel:
    """The whole model with its weights, on a device; with `dense`, the dense model that the section names."""
    options = options_of(section, device)
    if dense:
        assert section.dense_twin is not None
        twin = load_model(open_folder(section.dense_twin), replace(options, experts_backend="keep"))
        return HuggingFaceModel(twin, [])
    whole = load_model(open_folder(section.huggingface), options)
    return HuggingFaceModel(whole, find_sites(whole))
