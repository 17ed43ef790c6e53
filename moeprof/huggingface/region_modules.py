"""The modules of a model that belong to a region of a step, for hooks that attribute time; none of them is inside another."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from torch import nn

from moeprof.huggingface.layer_names import layer_name
from moeprof.huggingface.routers import NAMES
from moeprof.huggingface.sites import Site

CROSS = ("cross", "encdec")
"""Parts of names of attention over the encoder's output."""


class RegionModule(NamedTuple):
    """A module that runs in one region of one layer."""

    region: str
    layer: str
    path: str
    module: nn.Module


def region_modules(model: nn.Module, sites: Sequence[Site]) -> list[RegionModule]:
    """What runs in the regions `experts`, `gate`, `shared_experts`, `attention`, `cross_attention`, `embed` and `head`.

    Where modules of two regions are inside each other the earlier region of this list has its module; attention around experts has none.
    """
    modules = dict(model.named_modules())
    paths = {module: path for path, module in modules.items()}
    found: dict[str, RegionModule] = {}
    for one in [*of_layers(sites, modules, paths), *attention(modules), *ends(model, paths)]:
        if not any(nested(one.path, path) for path in found):
            found[one.path] = one
    return list(found.values())


def of_layers(sites: Sequence[Site], modules: dict[str, nn.Module], paths: dict[nn.Module, str]) -> Iterator[RegionModule]:
    """Experts first, then routers, then shared experts."""
    for site in sites:
        yield from named("experts", site.layer, site.adapter.computing(site.experts), paths)
    for site in sites:
        yield from named("gate", site.layer, gates(site, modules), paths)
    for site in sites:
        beside = [
            child for block in blocks(site.path, modules) for name, child in block.named_children() if name.startswith("shared")
        ]
        yield from named("shared_experts", site.layer, beside, paths)


def gates(site: Site, modules: dict[str, nn.Module]) -> list[nn.Module]:
    """The router of a site; one that transformers does not declare is found by its name."""
    if site.router is not None:
        return [site.router.module]
    beside = [getattr(block, name, None) for block in blocks(site.path, modules) for name in NAMES]
    return [module for module in beside if isinstance(module, nn.Module)][:1]


def blocks(path: str, modules: dict[str, nn.Module]) -> Iterator[nn.Module]:
    """The modules around the experts at `path`, from the inner to the layer."""
    while path and not path.rpartition(".")[2].isdecimal():
        path = path.rpartition(".")[0]
        yield modules[path]


def attention(modules: dict[str, nn.Module]) -> Iterator[RegionModule]:
    """Every module of a class named so; a module comes before those inside it."""
    for path, module in modules.items():
        kind = type(module).__name__
        if "Attention" in kind:
            is_cross = any(word in f"{path}.{kind}".lower() for word in CROSS)
            yield RegionModule(
                "cross_attention" if is_cross else "attention", layer_name(path.rpartition(".")[0]), path, module
            )


def ends(model: nn.Module, paths: dict[nn.Module, str]) -> Iterator[RegionModule]:
    """The embeddings of tokens, of an encoder and a decoder each its own, and the output layer."""
    inner = [module for module in model.modules() if hasattr(module, "get_input_embeddings")]
    embeddings = [end(module, "get_input_embeddings") for module in inner]
    yield from named("embed", "", [module for module in embeddings if isinstance(module, nn.Embedding)], paths)
    yield from named("head", "", [module for module in [end(model, "get_output_embeddings")] if module is not None], paths)


def end(model: nn.Module, getter: str) -> nn.Module | None:
    """What transformers names as an end of the model; towers for images and sound may name none."""
    try:
        found: nn.Module | None = getattr(model, getter)()
    except (AttributeError, NotImplementedError):
        return None
    return found


def named(region: str, layer: str, modules: Iterable[nn.Module], paths: dict[nn.Module, str]) -> Iterator[RegionModule]:
    """The modules with their paths in the model."""
    yield from (RegionModule(region, layer, paths[module], module) for module in modules)


def nested(one: str, other: str) -> bool:
    """Whether the modules at two paths are the same, or one is inside the other."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
