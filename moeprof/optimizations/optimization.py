"""What an optimization is: a name, a line of help, its own options, and the change that it makes to a Variant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moeprof.records.variant import Variant


@dataclass(frozen=True)
class Option:
    """A choice that one optimization leaves to the user, `--<name>` on the command line."""

    name: str
    choices: tuple[str, ...]
    default: str
    help: str


@dataclass(frozen=True)
class Optimization:
    """A step from one way of executing the same model to the next."""

    name: str
    """As the command line writes it, without dashes in front."""
    help: str
    apply: Callable[[Variant, Mapping[str, str]], Variant]
    """Of the variant before, and the values of `options` by name."""
    options: tuple[Option, ...] = ()
