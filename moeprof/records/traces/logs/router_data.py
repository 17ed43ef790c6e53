"""The format `router-data`: JSON of studies of gpt-oss, with the experts and probabilities of every token by layer.

`{"router_data": [{"token_0": {"layer_0": {"selected_experts": [K], "selected_probs": [K]}, ...}}, ...]}`, alone or in a list of prompts.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from moeprof.records.limits import MAX_LAYERS
from moeprof.records.name import name_from
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.logs.responses import responses_in
from moeprof.records.traces.logs.rows import ChoiceRows, choices_of
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NAME, KEY = "router-data", "router_data"
NO_PHASES = "the file does not state which tokens were decoded: each is taken as a step of decoding"
RouterRow = tuple[int, int, int, list[int], list[float]]
"""Sequence, position, layer, experts and probabilities."""


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
        rows = [row for number, document in enumerate(responses_in(file)) for row in rows_in(number, document.get(KEY))]
        if not rows:
            raise ValueError("no choices in it")
        sequences, positions, layers, experts, weights = zip(*rows, strict=True)
        if len({len(one) for one in experts}) > 1:
            raise ValueError("not every token has the same number of selected_experts")
        check_numbers(layers, options.layers)
        known = all(len(one) == len(experts[0]) for one in weights)
        table = ChoiceRows(
            np.array(sequences),
            np.array(positions),
            np.ones(len(rows), bool),
            np.array(layers),
            np.array(experts, np.int32),
            np.array(weights, np.float32) if known else None,
        )
        stated = Stated(NAME, name_from(file.path.name.partition(".")[0], "trace"), notes=[NO_PHASES])
        return imported(choices_of(table), stated, options)


def rows_in(sequence: int, tokens: object) -> Iterator[RouterRow]:
    """The rows of one prompt; ValueError if a part of it is something else."""
    for token in listed(tokens, KEY):
        for name, layers in named(token, "token"):
            for layer_name, choice in named(layers, "layer"):
                experts, weights = numbers(choice, "selected_experts", int), numbers(choice, "selected_probs", (int, float))
                if not experts:
                    raise ValueError(f"token_{name} has no selected_experts in layer_{layer_name}")
                yield sequence, name, layer_name, experts, weights


def listed(value: object, what: str) -> list[Any]:
    """A list; ValueError if the value is none."""
    if not isinstance(value, list):
        raise ValueError(f"{what} is not a list of tokens")
    return value


def named(value: object, kind: str) -> Iterator[tuple[int, Any]]:
    """The numbers in keys such as `token_3`, with what is under them; other keys are ignored."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object with the keys {kind}_0, {kind}_1, ...")
    for key, content in value.items():
        if match := re.fullmatch(rf"{kind}_(\d{{1,9}})", key):
            if kind == "layer" and int(match[1]) >= MAX_LAYERS:
                raise ValueError(f"{key} is not below {MAX_LAYERS:,}")
            yield int(match[1]), content


def numbers(choice: object, key: str, kinds: type | tuple[type, ...]) -> list[Any]:
    """The numbers under a key, [] if there are none; ValueError if they are something else."""
    values = choice.get(key) if isinstance(choice, dict) else None
    if values is None:
        return []
    if not isinstance(values, list) or any(not isinstance(one, kinds) or isinstance(one, bool) for one in values):
        raise ValueError(f"{key} is not a list of numbers")
    if key == "selected_experts" and any(not -1 <= one < 2**31 for one in values):
        raise ValueError(f"{key} has a number that is no expert")
    return values


ROUTER_DATA = TraceFormat(NAME, "router data of a study (*.json)", recognise=is_router_data, read=read_router_data)
