"""Marks the regions of a Hugging Face model, by hooks around the modules that do their work."""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING

from torch import nn
from torch.utils.hooks import RemovableHandle

from moeprof.huggingface.layer_names import layer_name
from moeprof.huggingface.sites import Site
from moeprof.instrument.probe import region

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHARED, CROSS = "shared", "encdec"


@contextmanager
def timed_regions(model: "PreTrainedModel", sites: Sequence[Site]) -> Iterator[None]:
    """Reports every region that the model runs in the block to the active probe."""
    with ExitStack() as hooks:
        for name, layer, module in region_modules(model, sites):
            for handle in around(module, name, layer):
                hooks.callback(handle.remove)
        yield


def around(module: nn.Module, name: str, layer: str) -> Iterator[RemovableHandle]:
    """Hooks that enter a region before the module runs, and leave it afterwards."""
    entered: list[AbstractContextManager[None]] = []

    def enter(*_: object) -> None:
        entered.append(region(name, layer))
        entered[-1].__enter__()

    def leave(*_: object) -> None:
        entered.pop().__exit__(None, None, None)

    yield module.register_forward_pre_hook(enter)
    yield module.register_forward_hook(leave)


def region_modules(model: "PreTrainedModel", sites: Sequence[Site]) -> Iterator[tuple[str, str, nn.Module]]:
    """The region, the layer and the module of every part of the model that has a region of its own; none is inside another.

    What is inside the experts' backend is not split, so `dispatch` and `combine` have no module.
    """
    marked: set[int] = set()
    for name, layer, module in candidates(model, sites):
        inside = {id(part) for part in module.modules()}
        if not inside & marked:
            marked |= inside
            yield name, layer, module


def layer_of(path: str) -> str:
    """The layer that a module is part of, without a suffix; empty outside the layers."""
    found = re.match(r"\D*\d+", layer_name(path))
    return found[0] if found and layer_name(path) != path else ""


def candidates(model: "PreTrainedModel", sites: Sequence[Site]) -> Iterator[tuple[str, str, nn.Module]]:
    """All of them, the experts first: what contains them is not marked."""
    modules = dict(model.named_modules())
    yield from (("experts", site.layer, site.experts) for site in sites)
    yield from (("gate", site.layer, site.router.module) for site in sites if site.router is not None)
    for site in sites:
        block = modules[site.path.rpartition(".")[0]]
        yield from (("shared_experts", site.layer, part) for name, part in block.named_children() if SHARED in name)
    for path, module in modules.items():
        kind = type(module).__name__.lower()
        layer = layer_of(path)
        if "attention" in kind:
            yield ("cross_attention" if CROSS in path.lower() or CROSS in kind else "attention"), layer, module
        elif kind.endswith("mlp") and path.rpartition(".")[2] != "experts":
            yield "dense_ffn", layer, module
    for name, module in (("embed", model.get_input_embeddings()), ("head", model.get_output_embeddings())):
        if isinstance(module, nn.Module):
            yield name, "", module
