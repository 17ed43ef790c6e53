"""Which part of the weights a rank holds: its share of every layer's experts, and all of the rest."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn

from moeprof.moe.experts import Experts
from moeprof.parallel.group import Group


@dataclass(frozen=True, eq=False)
class Held:
    """A parameter as it is here, beside what it is in the whole model."""

    name: str
    parameter: nn.Parameter
    whole: tuple[int, ...]
    """Its shape over all ranks."""
    first: int
    """Where, along the first dimension, the part that is here begins."""


def held(model: nn.Module, group: Group) -> Iterator[Held]:
    """Every parameter of a model that was made for so many ranks; experts are spread in order, E/N consecutive ones each.

    Those of a model on the meta device too; `present` leaves them out.
    """
    spread = {name for name, module in model.named_modules() if isinstance(module, Experts)}
    for name, parameter in model.named_parameters():
        share, *rest = parameter.shape
        if name.rpartition(".")[0] in spread:
            yield Held(name, parameter, (share * group.size, *rest), group.rank * share)
        else:
            yield Held(name, parameter, (share, *rest), 0)


def present(model: nn.Module, group: Group) -> Iterator[Held]:
    """Of them those that have memory: experts that lie behind slots have none."""
    return (part for part in held(model, group) if not part.parameter.is_meta)
