"""What an adapter is: it recognises the experts of a layer, and turns what a hook saw into routing decisions.

T: rows of the call, padding included. K: experts per row. E: experts of the layer.
"""

import inspect
from collections.abc import Mapping
from enum import IntEnum
from typing import Any, NamedTuple

from torch import Tensor, nn

from moeprof.huggingface.stack import ExpertStack


class Kept(IntEnum):
    """What became of a choice."""

    ROUTED = 0
    SKIPPED = 1
    """The router chose to skip the experts."""
    ZERO_COMPUTE = 2
    """An identity expert: it has no weights."""
    DROPPED = 3
    """The expert was full."""
    SENTINEL = 4
    """The expert is on another rank."""


class CallChoices(NamedTuple):
    """The routing of a call, as the model orders it."""

    experts_TK: Tensor
    """int64."""
    weights_TK: Tensor
    kept_TK: Tensor
    """Values of `Kept`, int8."""


class ExpertNumbers(NamedTuple):
    """The numbers of experts of a layer."""

    experts: int
    """E, those with weights."""
    zero: int = 0
    """Identity experts, whose ids follow."""


class Adapter:
    """One way of calling experts. `module` is what `recognises` accepted, `block` the module around it."""

    after = False
    """Whether the routing is in the output of the hooked module; otherwise it is in its arguments."""

    top_k: int | None = None
    """K, if it is always the same."""

    def recognises(self, module: nn.Module, block: nn.Module) -> bool:
        """Whether `module` holds experts that are called in this way."""
        raise NotImplementedError

    def hooked(self, module: nn.Module, block: nn.Module) -> nn.Module:
        """The module whose calls show the routing."""
        return module

    def computing(self, module: nn.Module) -> list[nn.Module]:
        """The modules that compute the outputs of the experts."""
        return [module]

    def stack(self, module: nn.Module, size: ExpertNumbers) -> ExpertStack | None:
        """The experts as variants execute them; None if only the model itself can."""
        return None

    def size(self, module: nn.Module, block: nn.Module) -> ExpertNumbers:
        """The numbers of experts."""
        return ExpertNumbers(number_of_experts(module))

    def expert_bytes(self, module: nn.Module, size: ExpertNumbers) -> int:
        """Bytes of one expert: its part of every tensor that has a part for each."""
        tensors = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
        parts = (size.experts, size.experts + size.zero)
        return sum(tensor.nbytes // len(tensor) for tensor in tensors if tensor.dim() and len(tensor) in parts)

    def computed_rows(self, num_rows: int, num_routed: int, size: ExpertNumbers) -> int:
        """Rows that the experts compute in a call of T = `num_rows`; `num_routed` choices, those of padding included, have an expert."""
        return num_routed

    def seen(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> tuple[Tensor, ...]:
        """The tensors of a call that `choices` needs; called inside the hook, so it must be quick."""
        raise NotImplementedError

    def choices(self, tensors: tuple[Tensor, ...], size: ExpertNumbers, top_k: int | None) -> CallChoices:
        """The routing, from copies of the tensors that `seen` returned."""
        raise NotImplementedError


def number_of_experts(module: nn.Module) -> int:
    """E as the module says it, or else the length of its first parameter."""
    number = getattr(module, "num_experts", None)
    return number if isinstance(number, int) else len(next(module.parameters()))


def parameter_names(module: nn.Module) -> list[str]:
    """The names of the arguments of `forward`, without self."""
    return list(inspect.signature(type(module).forward).parameters)[1:]
