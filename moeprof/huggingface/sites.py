"""The experts of a model, found by structure: one `Site` for each module of experts in each layer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from moeprof.huggingface.adapters.adapter import Adapter, ExpertNumbers
from moeprof.huggingface.adapters.registry import ADAPTERS
from moeprof.huggingface.layer_names import layer_names
from moeprof.huggingface.routers import SiteRouter, find_router, recorders
from moeprof.huggingface.stack import ExpertStack
from moeprof.records.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

UNSUPPORTED = {
    "DogeCDMoE": "its experts are single rows of embeddings, chosen by product keys",
    "VitPoseBackboneMoeMLP": "its experts are chosen by the data set, not by a router",
    "NllbMoeExperts": "transformers routes every token to experts 0 and 1, whatever the router chose",
}
"""Classes of experts that cannot be profiled, and why."""


@dataclass(frozen=True, eq=False)
class Site:
    """The experts of one layer."""

    layer: str
    path: str
    """Where `experts` is in the model."""
    experts: nn.Module
    """The module that holds the weights of the experts."""
    module: nn.Module
    """The module whose calls show the routing: the experts or their router."""
    adapter: Adapter
    size: ExpertNumbers
    top_k: int | None
    """K, if the router or the block says it."""
    groups: int
    """Groups of experts of which the router chooses some before it chooses experts; 1 if there are none."""
    expert_bytes: int
    """Of one expert, all of its tensors."""
    router: SiteRouter | None

    @property
    def stack(self) -> ExpertStack | None:
        """The experts as variants execute them; None if only the model itself can."""
        return self.adapter.stack(self.experts, self.size)

    @property
    def num_experts(self) -> int:
        """E, without identity experts."""
        return self.size.experts

    @property
    def num_zero(self) -> int:
        """Identity experts, whose ids follow those of the experts."""
        return self.size.zero


def find_sites(model: nn.Module) -> list[Site]:
    """All sites in the order of the model's modules. UsageError for a dense model, and for experts of an unsupported kind."""
    refuse_unsupported(model)
    modules = dict(model.named_modules())
    found = [(path, adapter) for path, module in modules.items() if (adapter := adapter_of(module, around(modules, path)))]
    if not found:
        raise UsageError(
            f"{type(model).__name__}: no layer with experts was found, it is a dense model",
            "Give a Mixture-of-Experts model: a module of experts takes hidden states, ids [T, K] and weights [T, K] of chosen experts, "
            "or its router is that of Llama 4, JetMoE or Switch Transformers.",
        )
    paths = [path for path, _ in found]
    indices, names = recorders(model, paths), layer_names(paths)
    return [
        make_site(layer, path, adapter, modules, find_router(path, modules, indices))
        for layer, (path, adapter) in zip(names, found, strict=True)
    ]


def make_site(layer: str, path: str, adapter: Adapter, modules: dict[str, nn.Module], router: SiteRouter | None) -> Site:
    """The site of the experts at `path`."""
    experts, block = modules[path], around(modules, path)
    size = adapter.size(experts, block)
    owners = [owner for owner in (router and router.module, block, adapter.hooked(experts, block)) if owner is not None]
    return Site(
        layer=layer,
        path=path,
        experts=experts,
        module=adapter.hooked(experts, block),
        adapter=adapter,
        size=size,
        top_k=first_number(owners, "top_k", "num_experts_per_tok") or adapter.top_k,
        groups=first_number(owners, "num_group", "n_group") or 1,
        expert_bytes=adapter.expert_bytes(experts, size),
        router=router,
    )


def adapter_of(module: nn.Module, block: nn.Module) -> Adapter | None:
    """The first adapter that recognises the module."""
    return next((adapter for adapter in ADAPTERS if adapter.recognises(module, block)), None)


def around(modules: dict[str, nn.Module], path: str) -> nn.Module:
    """The module that contains the one at `path`; for the model itself, itself."""
    return modules[path.rpartition(".")[0]]


def first_number(owners: list[nn.Module], *names: str) -> int | None:
    """The first attribute of these names that is a number."""
    found: Iterator[object] = (getattr(owner, name, None) for owner in owners for name in names)
    return next((value for value in found if type(value) is int), None)


def refuse_unsupported(model: nn.Module) -> None:
    """UsageError if a class of experts is known and cannot be profiled."""
    for path, module in model.named_modules():
        if reason := UNSUPPORTED.get(type(module).__name__):
            raise UsageError(
                f"{type(model).__name__}: the experts of {path} ({type(module).__name__}) are not supported: {reason}",
                "Give another Mixture-of-Experts model.",
            )
