"""What a Hugging Face model is, from its folder alone: the keys of a recipe's model that describe it."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from moeprof.huggingface.folder import open_folder
from moeprof.huggingface.loading import ExpertsBackend, Options, skeleton
from moeprof.huggingface.sites import Site, find_sites
from moeprof.records.errors import UsageError
from moeprof.records.recipe.model import HuggingFaceSection, LayerShape

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FLOATS = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
"""Types of weights and activations, as recipes name them."""


def options_of(section: HuggingFaceSection, device: str) -> Options:
    """How the model of a recipe is built on a device."""
    backend: ExpertsBackend = section.experts_backend
    return Options(
        dtype=None if section.dtype == "auto" else getattr(torch, section.dtype),
        device=device,
        device_map=section.device_map,
        experts_backend=backend,
        trust_remote_code=section.trust_remote_code,
    )


def described(section: HuggingFaceSection, device: str = "cpu") -> tuple[HuggingFaceSection, int]:
    """The section with all keys that describe its model, and the experts per token; no weight is read.

    UsageError if the folder holds no MoE model that can be profiled.
    """
    folder = open_folder(section.huggingface)
    model = skeleton(folder, options_of(section, device))
    sites = find_sites(model)
    top_k = top_k_of(section.huggingface, sites)
    if model.dtype not in FLOATS:
        raise folder.refused(f"its weights are {model.dtype}", f"Choose one of {', '.join(FLOATS.values())} with --dtype.")
    filled = keys_of(model, sites) | {"weights_hash": folder.hashes()["weights"]}
    return section.model_copy(update=filled), top_k


def keys_of(model: "PreTrainedModel", sites: Sequence[Site]) -> dict[str, Any]:
    """The keys of a recipe's model that a model says of itself, but not the hash of its weights."""
    config = model.config.get_text_config(decoder=True)
    experts = {id(parameter) for site in sites for parameter in site.experts.parameters()}
    return {
        "dtype": FLOATS.get(model.dtype, "auto"),
        "architecture": type(model).__name__,
        "layers": {site.layer: shape_of(site, model.dtype) for site in sites},
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "token_parameters": token_parameters(model, experts),
        "weight_bytes": sum(one.nbytes for one in (*model.parameters(), *model.buffers())),
        "dim": int(config.hidden_size),
        "vocab_size": int(config.vocab_size),
        "max_positions": int(getattr(config, "max_position_embeddings", 0) or 0),
    }


def shape_of(site: Site, dtype: torch.dtype) -> LayerShape:
    """One layer as a recipe describes it."""
    return LayerShape(
        path=site.path,
        experts=site.num_experts,
        zero_experts=site.num_zero,
        expert_parameters=max(site.expert_bytes // dtype.itemsize, 1),
        expert_bytes=site.expert_bytes,
        groups=site.groups if site.groups > 1 else 0,
    )


def top_k_of(model: str, sites: Sequence[Site]) -> int:
    """The experts per token, which all layers have in common; UsageError if they differ or are not known."""
    found: set[int] = {site.top_k for site in sites if site.top_k is not None}
    if len(found) != 1:
        what = (
            f"layers choose {', '.join(map(str, sorted(found)))} experts"
            if found
            else "no layer says how many experts it chooses"
        )
        raise UsageError(f"model {model}: {what}", "Models whose layers choose equally many experts can be profiled.")
    (top_k,) = found
    return int(top_k)


def token_parameters(model: "PreTrainedModel", experts: set[int]) -> int:
    """Parameters of the matrices outside the experts that each token is multiplied with: the head counts, a lookup does not."""
    head: nn.Module | None = model.get_output_embeddings()
    lookups = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    lookups -= {id(head.weight)} if isinstance(head, nn.Linear) else set()
    matrices = [one for one in model.parameters() if one.dim() >= 2 and id(one) not in experts | lookups]
    return sum(prod(one.shape) for one in matrices)
