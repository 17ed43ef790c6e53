"""An optimization: a name, a line of help, options, and the change that it makes to a Variant."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from moeprof.records.recipe.recipe import Recipe
from moeprof.records.recipe.variant import Variant

Settings = Mapping[str, str | bool | None]
"""Values by option name; None if the user did not set the option."""


@dataclass(frozen=True)
class Option:
    """A choice that an optimization leaves to the user, `--<name>` on the command line."""

    name: str
    help: str
    choices: tuple[str, ...] = ()
    """Allowed values; any text is allowed if empty."""
    default: str | None = None
    metavar: str = ""
    """Placeholder for a free text in the help."""
    is_flag: bool = False
    """Whether the option takes no value."""


@dataclass(frozen=True)
class Optimization:
    """A step from one way to execute a model to the next."""

    name: str
    """As on the command line, without leading dashes."""
    help: str
    apply: Callable[[Variant, Settings, Recipe], Variant]
    """Makes the next variant from the previous one and the settings; UsageError if they do not fit the recipe."""
    options: tuple[Option, ...] = ()
    needs: tuple[str, ...] = ()
    """Optimizations that it builds on: they are applied first, named or not."""
    why_not_applicable: Callable[[Recipe], str] = lambda _: ""
    """Why it cannot improve a recipe; empty if it can."""
