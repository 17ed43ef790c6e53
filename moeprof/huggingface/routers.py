"""The router beside a module of experts, and where its scores are in its output."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from torch import Tensor, nn

NAMES = ("gate", "router")
"""Attributes that hold a router of which transformers does not say more; its scores come first."""


class SiteRouter(NamedTuple):
    """A router, whose output has its scores for all experts."""

    module: nn.Module
    position: int
    """Where the scores are, if the output is a tuple."""

    def recorded(self, output: Any) -> Tensor:
        """The scores [T, classes] in an output of the module."""
        scores: Tensor = output[self.position] if isinstance(output, tuple) else output
        return scores.reshape(-1, scores.shape[-1])


def recorders(model: nn.Module, paths: Collection[str]) -> dict[type[nn.Module], int]:
    """The classes of routers that the model declares, as transformers records `router_logits`, and the index of their scores.

    A class around one of the experts at `paths` is left out: its scores are known when the experts are done.
    """
    found: dict[type[nn.Module], int] = {}
    for module in model.modules():
        declared = (getattr(module, "_can_record_outputs", None) or {}).get("router_logits", [])
        for recorder in declared if isinstance(declared, list) else [declared]:
            found.update(recorder_of(recorder))
    containers = {type(module) for path, module in model.named_modules() if any(one.startswith(f"{path}.") for one in paths)}
    return {kind: index for kind, index in found.items() if kind not in containers}


def recorder_of(recorder: Any) -> Iterator[tuple[type[nn.Module], int]]:
    """A recorder is a class with an index, or a class alone, which stands for index 1."""
    if isinstance(recorder, type):
        yield recorder, 1
    elif isinstance(getattr(recorder, "target_class", None), type):
        yield recorder.target_class, recorder.index


def find_router(path: str, modules: dict[str, nn.Module], indices: dict[type[nn.Module], int]) -> SiteRouter | None:
    """The router nearest to the experts at `path`, in the module itself or around it within its layer.

    It is of a declared class; `NAMES` count only if the model declares none.
    """
    while path:
        for name, module in modules[path].named_children():
            if (index := indices.get(type(module), None if indices or name not in NAMES else 0)) is not None:
                return SiteRouter(module, index)
        if path.rpartition(".")[2].isdecimal():
            break
        path = path.rpartition(".")[0]
    return None
