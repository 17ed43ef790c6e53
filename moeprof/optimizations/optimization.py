"""What an optimization is: a name, a line of help, its own options, and the change that it makes to a Variant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant

Settings = Mapping[str, str | bool | None]
"""What the user chose, by the option's name; None where nobody said."""


@dataclass(frozen=True)
class Option:
    """Something that one optimization leaves to the user, `--<name>` on the command line."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    """All that it can be; any text where empty."""
    default: str | None = None
    metavar: str = ""
    """What stands for a free text in the help."""
    is_flag: bool = False
    """Whether it is either there or not."""


@dataclass(frozen=True)
class Optimization:
    """A step from one way of executing the same model to the next."""

    name: str
    """As the command line writes it, without dashes in front."""
    help: str
    apply: Callable[[Variant, Settings, Recipe], Variant]
    """Of the variant before, and the values of `options` by name; UsageError where they do not fit the recipe."""
    options: tuple[Option, ...] = ()
    needs: tuple[str, ...] = ()
    """Optimizations on top of which alone it makes sense: they are applied before it, named or not."""
    obstacle: Callable[[Recipe], str] = lambda _: ""
    """Why the recipe has no use for it; empty where it has."""
