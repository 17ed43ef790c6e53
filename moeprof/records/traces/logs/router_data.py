"""The format `router-data`: JSON of studies of gpt-oss, with the experts and probabilities of every token by layer.

`{"router_data": [{"token_0": {"layer_0": {"selected_experts": [K], "selected_probs": [K]}, ...}}, ...]}`, alone or in a list of prompts.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import chain
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
    experts: list[list[Any]]
    weights: list[list[Any]]


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
        stated = Stated(NAME, name_from(file.path.name.partition(".")[0], "trace"), notes=[NO_PHASES])
        return imported(choices_of(table), stated, options)


def columns_of(tokens: object) -> Columns:
    """The rows of one prompt; ValueError if a part of it is something else."""
    if not isinstance(tokens, list):
        raise ValueError(f"{KEY} is not a list of tokens")
    found = Columns([], [], [], [])
    for token in tokens:
        for position, layers in named(token, "token"):
            for layer, choice in named(layers, "layer"):
                if layer >= MAX_LAYERS:
                    raise ValueError(f"layer_{layer} is not below {MAX_LAYERS:,}")
                found.positions.append(position)
                found.layers.append(layer)
                found.experts.append(listed(choice, EXPERTS))
                found.weights.append(listed(choice, WEIGHTS))
                if not found.experts[-1]:
                    raise ValueError(f"token_{position} has no {EXPERTS} in layer_{layer}")
    return found


def named(value: object, kind: str) -> Iterator[tuple[int, Any]]:
    """The numbers in keys such as `token_3`, with what is under them; other keys are ignored."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object with the keys {kind}_0, {kind}_1, ...")
    for key, content in value.items():
        if (number := number_in(key, kind)) is not None:
            yield number, content


@lru_cache(2**16)
def number_in(key: str, kind: str) -> int | None:
    """The number in a key such as `token_3`; None for another key."""
    match = re.fullmatch(rf"{kind}_(\d{{1,9}})", key)
    return int(match[1]) if match else None


def listed(choice: object, key: str) -> list[Any]:
    """The list under a key, [] if there is none; ValueError if there is something else."""
    values = choice.get(key) if isinstance(choice, dict) else None
    if values is not None and not isinstance(values, list):
        raise ValueError(f"{key} is not a list of numbers")
    return values or []


def rows_of(sequence: int, columns: Columns) -> ChoiceRows:
    """The rows of one prompt in arrays; ValueError if lists hold anything but numbers, or differ in length."""
    num_rows = len(columns.layers)
    experts_RK = numbers(columns.experts, EXPERTS, {int}, np.dtype(np.int64))
    if experts_RK is None:
        raise ValueError(f"not every token has the same number of {EXPERTS}")
    if num_rows and not NO_EXPERT <= experts_RK.min() <= experts_RK.max() < 2**31:
        raise ValueError(f"{EXPERTS} has a number that is no expert")
    weights_RK = numbers(columns.weights, WEIGHTS, {int, float}, np.dtype(np.float32))
    return ChoiceRows(
        np.full(num_rows, sequence),
        np.array(columns.positions, np.int64),
        np.ones(num_rows, bool),
        np.array(columns.layers, np.int64),
        experts_RK.astype(np.int32),
        weights_RK if weights_RK is not None and weights_RK.shape == experts_RK.shape else None,
    )


def numbers(lists: Sequence[list[Any]], key: str, kinds: set[type], dtype: np.dtype[np.generic]) -> npt.NDArray[Any] | None:
    """Lists as an array; None if they differ in length. ValueError if they hold anything but numbers of some kinds."""
    if not set(map(type, chain.from_iterable(lists))) <= kinds:
        raise ValueError(f"{key} is not a list of numbers")
    try:
        return np.array(lists, dtype) if len(set(map(len, lists))) <= 1 else None
    except OverflowError as error:
        raise ValueError(f"{key} has a number of too many digits") from error


ROUTER_DATA = TraceFormat(NAME, "router data of a study (*.json)", recognise=is_router_data, read=read_router_data)
