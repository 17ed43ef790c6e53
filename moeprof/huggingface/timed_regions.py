"""Marks the regions of a Hugging Face model, by hooks around the modules that do their work."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

from torch import nn
from torch.utils.hooks import RemovableHandle

from moeprof.huggingface.region_modules import region_modules
from moeprof.huggingface.sites import Site
from moeprof.instrument.probe import region


@contextmanager
def timed_regions(model: nn.Module, sites: Sequence[Site], marked: Collection[str] = ()) -> Iterator[None]:
    """Reports every region that the model runs in the block to the active probe; layers in `marked` report their experts themselves."""
    with ExitStack() as hooks:
        for one in region_modules(model, sites):
            if one.region != "experts" or one.layer not in marked:
                for handle in around(one.module, one.region, one.layer):
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
    yield module.register_forward_hook(leave, prepend=True)  # before what others do with the output, which may have a region
