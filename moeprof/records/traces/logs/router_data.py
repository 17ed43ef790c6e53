"""The format `router-data`: JSON of studies of gpt-oss, with the experts and probabilities of every token by layer.

`{"router_data": [{"token_0": {"layer_0": {"selected_experts": [K], "selected_probs": [K]}, ...}}, ...]}`, alone or in a list of prompts.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, repeat
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from moeprof.records.limits import MAX_LAYERS
from moeprof.records.name import name_from
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.choices import NO_EXPERT
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.logs.responses import responses_in
from moeprof.records.traces.logs.rows import ChoiceRows, choices_of, joined
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NAME, KEY = "router-data", "router_data"
EXPERTS, WEIGHTS = "selected_experts", "selected_probs"
NO_PHASES = "the file does not state which tokens were decoded: each is taken as a step of decoding"


class Columns(NamedTuple):
    """The rows of one prompt; one object per row would keep the garbage collector busy."""

    positions: list[int]
    layers: list[int]
    choices: list[dict[str, Any]]


def is_router_data(file: InputFile) -> bool:
    """Whether the file is JSON with the key of such a study."""
    text = file.head_text
    return text.lstrip()[:1] in ("{", "[") and f'"{KEY}"' in text and '"selected_experts"' in text


def read_router_data(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """One sequence per prompt; UsageError if the file is damaged."""
    file = only(files)
    with reported(
        f"router data {file.path}", 'Give JSON with router_data: [{"token_0": {"layer_0": {"selected_experts": [...]}}}].'
    ):
        documents = enumerate(responses_in(file))
        parts = [part for number, document in documents if len(part := rows_of(number, columns_of(document.get(KEY))))]
        if not parts:
            raise ValueError("no choices in it")
        table = joined(parts)
        check_numbers(np.unique(table.layer_R).tolist(), options.layers)
        stated = Stated(NAME, name_from(file.path.name.partition(".")[0], "trace"), by_layer=True, notes=[NO_PHASES])
        return imported(choices_of(table), stated, options)


def columns_of(tokens: object) -> Columns:
    """The rows of one prompt; ValueError if a part of it is something else."""
    if not isinstance(tokens, list):
        raise ValueError(f"{KEY} is not a list of tokens")
    found = Columns([], [], [])
    for token in tokens:
        for position, layers in zip(*named(token, "token"), strict=True):
            numbers, choices = named(layers, "layer")
            found.positions.extend(repeat(position, len(numbers)))
            found.layers.extend(numbers)
            found.choices.extend(choices)
    if (last := max(found.layers, default=0)) >= MAX_LAYERS:
        raise ValueError(f"layer_{last} is not below {MAX_LAYERS:,}")
    if set(map(type, found.choices)) - {dict}:
        raise ValueError(f"not every token has an object with {EXPERTS} in each of its layers")
    return found


def named(value: object, kind: str) -> tuple[list[int], list[Any]]:
    """The numbers in keys such as `token_3`, and what is under them; other keys are ignored."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object with the keys {kind}_0, {kind}_1, ...")
    numbers = [number_in(key, kind) for key in value]
    contents = [content for number, content in zip(numbers, value.values(), strict=True) if number is not None]
    return [number for number in numbers if number is not None], contents


@lru_cache(2**16)
def number_in(key: str, kind: str) -> int | None:
    """The number in a key such as `token_3`; None for another key."""
    match = re.fullmatch(rf"{kind}_(\d{{1,9}})", key)
    return int(match[1]) if match else None


def rows_of(sequence: int, columns: Columns) -> ChoiceRows:
    """The rows of one prompt in arrays; ValueError if lists are absent, hold anything but numbers, or differ in length."""
    num_rows = len(columns.layers)
    experts = listed(columns.choices, EXPERTS)
    if not all(experts):
        first = next(row for row, listed in enumerate(experts) if not listed)
        raise ValueError(f"token_{columns.positions[first]} has no {EXPERTS} in layer_{columns.layers[first]}")
    experts_RK = numbers(experts, EXPERTS, {int}, np.dtype(np.int64))
    if experts_RK is None:
        raise ValueError(f"not every token has the same number of {EXPERTS}")
    if num_rows and not NO_EXPERT <= experts_RK.min() <= experts_RK.max() < 2**31:
        raise ValueError(f"{EXPERTS} has a number that is no expert")
    weights_RK = numbers(listed(columns.choices, WEIGHTS), WEIGHTS, {int, float}, np.dtype(np.float32))
    return ChoiceRows(
        np.full(num_rows, sequence),
        np.array(columns.positions, np.int64),
        np.ones(num_rows, bool),
        np.array(columns.layers, np.int64),
        experts_RK.astype(np.int32),
        weights_RK if weights_RK is not None and weights_RK.shape == experts_RK.shape else None,
    )


def listed(choices: Sequence[dict[str, Any]], key: str) -> list[list[Any]]:
    """The list under a key of every choice, [] if there is none; ValueError if there is something else."""
    found: list[Any] = [choice.get(key) for choice in choices]
    if (kinds := set(map(type, found))) - {list, type(None)}:
        raise ValueError(f"{key} is not a list of numbers")
    return found if kinds <= {list} else [values or [] for values in found]


def numbers(lists: Sequence[list[Any]], key: str, kinds: set[type], dtype: np.dtype[np.generic]) -> npt.NDArray[Any] | None:
    """Lists as an array; None if they differ in length. ValueError if they hold anything but numbers of some kinds."""
    values = list(chain.from_iterable(lists))
    if not set(map(type, values)) <= kinds:
        raise ValueError(f"{key} is not a list of numbers")
    if len(lengths := set(map(len, lists))) > 1:
        return None
    try:
        return np.fromiter(values, dtype, len(values)).reshape(len(lists), *lengths)
    except OverflowError as error:
        raise ValueError(f"{key} has a number of too many digits") from error


ROUTER_DATA = TraceFormat(NAME, "router data of a study (*.json)", recognise=is_router_data, read=read_router_data)
