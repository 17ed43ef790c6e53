"""The format `selections`: one JSON object with the choices of every token.

`{"layers": L, "expertsPerLayer": E, "topK": K, "selections": [tokens][layers][K]}`, with the first token of each prompt in
`promptBoundaries` beside it, or their lengths in `promptLengths`. `layers` is a number, or a list of absolute numbers. The tokens of a
prompt ran together, as in an encoder.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.records.errors import UsageError
from moeprof.records.name import name_from
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.choices import Ids, LoggedChoices
from moeprof.records.traces.dense_layers import moe_layers_of
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.logs.arrays import count_of, ids_of_lists
from moeprof.records.traces.logs.sequences import cube_of, numbers_of
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NAME = "selections"
STARTS, LENGTHS = ("promptBoundaries", "prompt_boundaries", "promptStarts"), ("promptLengths", "prompt_lengths")
NO_PROMPTS = "the file does not state where prompts begin: each token is taken as a step of decoding"


def is_selections(file: InputFile) -> bool:
    """Whether the file is a JSON object with selections of experts."""
    text = file.head_text
    return text.lstrip().startswith("{") and '"selections"' in text and '"topK"' in text


def read_selections(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """A step of prefill per prompt; without prompts, a step of decoding per token. UsageError if the file is damaged."""
    file = only(files)
    with reported(
        f"selections {file.path}", "Give JSON with layers, expertsPerLayer, topK and selections: [tokens][layers][topK]."
    ):
        document = file.json()
        if not isinstance(document, dict):
            raise ValueError("not a JSON object")
        experts_TLK = ids_of_lists(document.pop("selections", None), "selections")  # its lists take more memory than all else
        experts_TLK, layers = layers_in(document, experts_TLK, options)
        sequence_T = sequences_in(document, len(experts_TLK))
        place_T = np.arange(len(experts_TLK))
        in_prompt = sequence_T is not None
        sequence_T = np.zeros(len(place_T), np.int64) if sequence_T is None else sequence_T
        choices = LoggedChoices(
            experts_TLK,
            layers,
            step_T=sequence_T if in_prompt else place_T,
            sequence_T=sequence_T,
            position_T=place_T - np.searchsorted(sequence_T, sequence_T),
            decode_T=np.full(len(place_T), not in_prompt),
        )
        stated = Stated(
            NAME,
            name_from(file.path.name.partition(".")[0], "trace"),
            experts=count_of(document, "expertsPerLayer"),
            top_k=count_of(document, "topK"),
            notes=[] if in_prompt else [NO_PROMPTS],
        )
        return imported(choices, stated, options)


def layers_in(document: dict[str, Any], experts_TLK: Ids, options: ImportOptions) -> tuple[Ids, Sequence[int]]:
    """The choices in layers with experts, and their numbers: as listed, as stated by the options, or all layers from 0."""
    layers, found = document.get("layers"), experts_TLK.shape[1]
    if isinstance(layers, list):
        if any(type(layer) is not int or layer < 0 for layer in layers) or len(set(layers)) != found:
            raise ValueError(f"layers does not list {found} different numbers, as many as a token has layers")
        check_numbers(layers, options.layers)
        return experts_TLK, layers
    if layers is not None and layers != found:
        raise ValueError(f"layers = {str(layers)[:40]}, but a token has {found}")
    if options.layers is None and not (experts_TLK == 0).all(axis=(0, 2)).any():
        return experts_TLK, range(found)
    return moe_layers_of(experts_TLK, options.layers)


def sequences_in(document: dict[str, Any], num_tokens: int) -> Ids | None:
    """The prompt of every token, (T,); None if none are stated. ValueError if they do not cover the tokens in order, or differ."""
    found = {
        key: prompts_of(key, stated, num_tokens) for key in (*STARTS, *LENGTHS) if (stated := document.get(key)) is not None
    }
    first = next(iter(found), None)
    if differing := [key for key in found if not np.array_equal(found[key], found[first or key])]:
        raise ValueError(f"{first} and {differing[0]} divide the tokens into different prompts")
    return None if first is None else found[first]


def prompts_of(key: str, stated: object, num_tokens: int) -> Ids:
    """The prompt of every token, (T,), as one key states them."""
    if not isinstance(stated, list) or any(type(one) is not int or not 0 <= one <= num_tokens for one in stated):
        raise ValueError(f"{key} is not a list of numbers from 0 to {num_tokens}")
    starts = np.array(stated, np.int64) if key in STARTS else np.cumsum([0, *stated])
    starts = starts[:-1] if len(starts) and starts[-1] == num_tokens else starts
    if not len(starts) or starts[0] != 0 or (np.diff(starts) <= 0).any() or (key in LENGTHS and sum(stated) != num_tokens):
        raise ValueError(f"{key} does not divide {num_tokens} tokens into prompts, the first of which begins at 0")
    return np.searchsorted(starts, np.arange(num_tokens), side="right") - 1


def write_selections(file: TraceFile, path: Path) -> None:
    """Writes one phase; UsageError if there are several, or if a token lacks choices in a layer."""
    try:
        cube = cube_of(file)
        if len(file.traces) > 1:
            raise ValueError("it has several phases")
        if (cube.experts_TLK < 0).any():
            raise ValueError("not every token has choices in every layer")
        layers = numbers_of(cube.layers)
    except ValueError as error:
        raise UsageError(
            f"{path}: {file.name} cannot be written as {NAME}: {error}", "Write it as route-csv, which holds any choices."
        ) from error
    header = file.traces[0].header
    starts = np.flatnonzero(np.append(True, np.diff(cube.group_T) != 0)).tolist()
    document = {"layers": layers, "expertsPerLayer": header.num_experts, "topK": header.top_k}
    if not cube.decode_T.any():
        document["promptBoundaries"] = starts
    write_text(path, json.dumps(document | {"selections": cube.experts_TLK.tolist()}) + "\n")


SELECTIONS = TraceFormat(
    NAME,
    "selections of experts (*.json)",
    recognise=is_selections,
    read=read_selections,
    write=write_selections,
    derives=frozenset({"step", "sequence", "position"}),
    endings=(".selections.json",),
)
