"""The options that say about a foreign trace what its files do not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_EXPERTS
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.layer_map import LayerMap
from moeprof.records.traces.model_facts import ModelFacts, read_model_facts

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS = (
    click.option("--from", "source", metavar="FORMAT", help="Format of the files.  [default: recognised by their content]"),
    click.option(
        "--model-config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The model's config.json: which layers have experts, how many, and how many a token uses.",
    ),
    click.option("--layers", metavar="N-M,...", help="Numbers of the layers that have experts, such as 1-47."),
    click.option(
        "--top-k", type=click.IntRange(1, MAX_EXPERTS), metavar="K", help="Experts of a token, if the files do not say."
    ),
    click.option(
        "--experts", type=click.IntRange(1, MAX_EXPERTS), metavar="N", help="Experts of a layer, if the files do not say."
    ),
    click.option("--keep-padding", is_flag=True, help="Keep rows that only fill a batch."),
    click.option("--keep-warmup", is_flag=True, help="Keep the leading rows of identical choices."),
    click.option("--physical", is_flag=True, help="Keep ids of physical experts, although the files map them to logical ones."),
)

NAMES = ("source", "model_config", "layers", "top_k", "experts", "keep_padding", "keep_warmup", "physical")
"""The parameters of the options."""


def trace_options(function: F) -> F:
    """Adds the options to a command, whose function gets them by name."""
    for decorator in reversed(OPTIONS):
        function = decorator(function)
    return function


def import_options(given: dict[str, Any], *, strip_tokens: bool = False) -> ImportOptions:
    """The options among those that a command was given; UsageError if they contradict each other."""
    config, layers, source = (given[name] for name in ("model_config", "layers", "source"))
    if config is not None and layers is not None:
        raise UsageError("--layers and --model-config: both are given", "Give one; both name the layers that have experts.")
    if source is not None:
        from moeprof.records.traces.formats import format_named  # here, because its readers import pyarrow

        format_named(source)
    kept = {name: given[name] for name in ("keep_padding", "keep_warmup", "physical")}
    numbers = {name: given[name] for name in ("top_k", "experts")}
    stated = parsed(layers) if layers else None
    if config is not None:
        facts = read_model_facts(config)
        stated, numbers = facts.layers, with_facts(numbers, facts, config, physical=kept["physical"])
    return ImportOptions(format=source, layers=stated, strip_tokens=strip_tokens, **numbers, **kept)


def with_facts(numbers: dict[str, int | None], facts: ModelFacts, config: Path, *, physical: bool) -> dict[str, int | None]:
    """The numbers of experts and choices, from the options and the model's configuration; UsageError if these differ.

    Physical experts are more than those of the configuration.
    """
    known = {"top_k": facts.top_k, "experts": None if physical else facts.experts}
    for name, value in numbers.items():
        if None not in (value, known[name]) and value != known[name]:
            option = f"--{name.replace('_', '-')} {value}"
            raise UsageError(
                f"{option}: {config} states {known[name]}", "Remove the option, or give the model's own configuration."
            )
    return {name: known[name] if value is None else value for name, value in numbers.items()}


def parsed(layers: str) -> LayerMap:
    """The layers of `--layers`; UsageError if they are none."""
    try:
        return LayerMap.parse(layers)
    except ValueError as error:
        raise UsageError(f"--layers {layers}: {error}", "Example: --layers 1-47") from error
