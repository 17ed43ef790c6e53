"""What is routed to the experts of a model, read by forward hooks while a block runs; the model and its backend stay as they are.

T: rows of a call, padding included. K: experts per row.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from moeprof.huggingface.adapters.adapter import CallChoices
from moeprof.huggingface.layer_names import needs_other_input
from moeprof.huggingface.routers import SiteRouter
from moeprof.huggingface.sites import Site
from moeprof.records.errors import MoeprofError


@dataclass(eq=False)
class Call:
    """One call of the experts of a layer."""

    site: Site
    tensors: tuple[Tensor, ...]
    """Copies of what the adapter reads the choices from."""
    backend: str
    """What computed the experts: eager, grouped_mm, batched_mm, ..."""
    recorded_TC: Tensor | None
    """The router's scores for its classes, if they are captured too."""

    @cached_property
    def received(self) -> CallChoices:
        """The choices in the order and the types in which the experts received them."""
        return self.site.adapter.choices(self.tensors, self.site.size, self.site.top_k)

    @cached_property
    def choices(self) -> CallChoices:
        """The choices of each row by descending weight, equal weights by id: int64, float32 and int8."""
        return by_weight(self.received)

    @property
    def experts_TK(self) -> Tensor:
        """The ids of the chosen experts, int64."""
        return self.choices.experts_TK

    @property
    def weights_TK(self) -> Tensor:
        """The weights that the experts receive, float32."""
        return self.choices.weights_TK

    @property
    def kept_TK(self) -> Tensor:
        """What became of each choice, a value of `Kept`."""
        return self.choices.kept_TK


def by_weight(choices: CallChoices) -> CallChoices:
    """The choices of each row by descending weight, equal weights by id."""
    ids_TK = choices.experts_TK.argsort(dim=1, stable=True)
    weights_TK = choices.weights_TK.float()
    order_TK = ids_TK.gather(1, weights_TK.gather(1, ids_TK).argsort(dim=1, descending=True, stable=True))
    return CallChoices(
        choices.experts_TK.gather(1, order_TK), weights_TK.gather(1, order_TK), choices.kept_TK.gather(1, order_TK)
    )


class Capture:
    """`with Capture(find_sites(model), see): ...` calls `see` with each call of experts inside the block, after which no hook is left.

    With `scores=True` a call has the router's scores too. MoeprofError at the end of the block if a layer made no call.
    """

    def __init__(self, sites: Sequence[Site], see: Callable[[Call], object], *, scores: bool = False) -> None:
        self.sites, self.see, self.scores = sites, see, scores
        self.silent = {site.path: site for site in sites}
        """The sites that made no call yet."""
        self.recorded: dict[str, Tensor] = {}
        self.hooks = ExitStack()

    def __enter__(self) -> "Capture":
        with ExitStack() as hooks:
            for site in self.sites:
                for handle in self.attach(site):
                    hooks.callback(handle.remove)
            self.hooks = hooks.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.hooks.close()
        if kind is None:
            self.require_calls()

    def attach(self, site: Site) -> Iterator[RemovableHandle]:
        """Hooks the router first: its scores are known when the choices are seen, if both are in the output of one module."""
        if self.scores and site.router is not None:
            yield site.router.module.register_forward_hook(self.scores_hook(site, site.router))
        if site.adapter.after:
            yield site.module.register_forward_hook(self.after_hook(site))
        else:
            yield site.module.register_forward_pre_hook(self.before_hook(site), with_kwargs=True)

    def scores_hook(self, site: Site, router: SiteRouter) -> Callable[..., None]:
        """Keeps the scores of the router for the call of the experts that follows."""

        def hook(module: nn.Module, args: object, output: object) -> None:
            self.recorded[site.path] = router.recorded(output).detach().clone()

        return hook

    def before_hook(self, site: Site) -> Callable[..., None]:
        """Reads the arguments of the experts."""
        seen, called = site.adapter.seen, self.called(site)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            called(seen(args, kwargs, None))

        return hook

    def after_hook(self, site: Site) -> Callable[..., None]:
        """Reads the output of the router."""
        seen, called = site.adapter.seen, self.called(site)

        def hook(module: nn.Module, args: tuple[Any, ...], output: object) -> None:
            called(seen(args, {}, output))

        return hook

    def called(self, site: Site) -> Callable[[tuple[Tensor, ...]], None]:
        """A function that copies what a call shows, because the model may write over it, and passes the call on.

        It runs once per layer and step: what it needs is looked up here, and what can be computed later is.
        """
        experts, see, silent, recorded, path = site.experts, self.see, self.silent, self.recorded, site.path

        def called(tensors: tuple[Tensor, ...]) -> None:
            silent.pop(path, None)
            if torch.is_grad_enabled():
                tensors = tuple(tensor.detach() for tensor in tensors)
            copies = tuple([tensor.clone() for tensor in tensors])
            see(Call(site, copies, backend_of(experts), recorded.pop(path, None)))

        return called

    def require_calls(self) -> None:
        """MoeprofError if a layer made no call, unless its experts are for input that text does not have."""
        silent = [site for site in self.silent.values() if not needs_other_input(site.layer)]
        if silent:
            layers = ", ".join(f"{site.layer} ({site.path})" for site in silent)
            raise MoeprofError(
                f"layers whose experts made no call that a hook can see: {layers}",
                "Run the model inside the block. Experts are called past their module if the model is compiled, if it has mxfp4 kernels "
                "(load it with Mxfp4Config(dequantize=True)), or if kernels of the hub replace its layers (use_kernels=False).",
            )


def backend_of(experts: nn.Module) -> str:
    """What computes the experts now, as transformers reads it at each call; without a configuration it is a loop of their own.

    The attribute behind `config._experts_implementation` is read without the configuration's own lookup, which takes longer than a hook.
    """
    config = experts.__dict__.get("config")
    try:
        return object.__getattribute__(config, "_experts_implementation_internal") or "eager"
    except AttributeError:
        return getattr(config, "_experts_implementation", None) or "eager"
