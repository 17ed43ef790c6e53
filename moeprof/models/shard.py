"""The part of the weights that a rank holds: its share of every layer's experts, and all other parameters."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from moeprof.moe.experts import Experts
from moeprof.parallel.group import Group


@dataclass(frozen=True, eq=False)
class Held:
    """A parameter on this rank, and its position in the whole model."""

    name: str
    parameter: nn.Parameter
    whole: tuple[int, ...]
    """Its shape over all ranks."""
    first: int
    """Index in the first dimension at which this rank's part begins."""


def held(model: nn.Module, group: Group) -> Iterator[Held]:
    """Every parameter of one rank's model; ranks hold E/N consecutive experts each, in order.

    This includes parameters on the meta device, which `present` omits.
    """
    spread = {name for name, module in model.named_modules() if isinstance(module, Experts)}
    for name, parameter in model.named_parameters():
        share, *rest = parameter.shape
        if name.rpartition(".")[0] in spread:
            yield Held(name, parameter, (share * group.size, *rest), group.rank * share)
        else:
            yield Held(name, parameter, (share, *rest), 0)


def present(model: nn.Module, group: Group) -> Iterator[Held]:
    """The parameters that have memory; experts behind cache slots have none."""
    return (part for part in held(model, group) if not part.parameter.is_meta)
