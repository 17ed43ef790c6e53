"""The format `vllm-log`: JSON lines of a logger in vLLM's router, a file per layer or one for several.

A line `{"type": "meta", "layers_logged": [...], "top_k": K}`, then a line per token and layer
`{"type": "route", "req_id", "token_idx", "layer", "topk_ids": [K], "topk_weights": [K]}`; rows of the passes in which vLLM measures its
memory come first. N rows of a layer, L layers, K choices.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from moeprof.records.limits import MAX_LAYERS
from moeprof.records.name import name_from
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.choices import Ids, LoggedChoices
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.importing import Stated, imported
from moeprof.records.traces.layer_map import check_numbers
from moeprof.records.traces.logs.arrays import count_of
from moeprof.records.traces.logs.json_lines import (
    first_objects,
    lines_of_type,
    lists_of,
    numbers_in,
    optional_lists,
    table_of_lines,
)
from moeprof.records.traces.trace_format import TraceFile, TraceFormat

NAME = "vllm-log"
NAMED = re.compile(r'"req_id"\s*:\s*"')
"""A request with a name; in other logs requests have numbers."""

NO_PHASES = "the log does not state which tokens were decoded: each is taken as a step of decoding"
FIELDS = {
    "type": pa.string(),
    "token_idx": pa.int64(),
    "layer": pa.int64(),
    "topk_ids": pa.list_(pa.int32()),
    "topk_weights": pa.list_(pa.float32()),
}


def is_log(file: InputFile) -> bool:
    """Whether the file begins with JSON that has the fields of a meta line or a route line."""
    text = file.head_text
    return text.lstrip().startswith("{") and ('"topk_ids"' in text or '"layers_logged"' in text)


@dataclass(frozen=True)
class LayerLog:
    """The rows of one layer, in the order of the log."""

    request_N: Ids
    """Numbers of the requests, in the order of their first appearance in all files."""
    token_N: Ids
    experts_NK: Ids
    weights_NK: npt.NDArray[np.floating]


def read_log(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """One sequence per request; UsageError if a file is damaged, or the files are not of one recording."""
    logs: dict[int, LayerLog] = {}
    requests: dict[object, int] = {}
    top_k, named = None, set[int]()
    for file in files:
        with reported(f"routing log {file.path}", "Give a complete log of lines with req_id, token_idx, layer, topk_ids."):
            found = layers_in(file, requests)
            if twice := sorted({*logs} & {*found}):
                raise ValueError(f"layer {twice[0]} is in another of the files too")
            logs |= found
            named |= named_layers(file)
            stated = stated_top_k(file)
            if None not in (top_k, stated) and top_k != stated:
                raise ValueError(f"it states {stated} choices of a token, and another of the files {top_k}")
            top_k = stated if top_k is None else top_k
    with reported(f"routing log {files[0].path}", "Give logs of one recording, complete, with the layers of the model."):
        choices, notes = together(logs)
        if missing := sorted(named - {*logs}):
            notes.append(f"layers that the log names and has no rows of: {', '.join(map(str, missing))}")
        check_numbers(sorted(logs), options.layers)
        name = name_from(files[0].path.name.partition(".")[0], "trace")
        return imported(choices, Stated(NAME, name, top_k=top_k, notes=notes), options)


def stated_top_k(file: InputFile) -> int | None:
    """K in the meta line; None if there is none."""
    return next((count_of(line, "top_k") for line in first_objects(file) if line.get("type") == "meta"), None)


def named_layers(file: InputFile) -> set[int]:
    """The layers in the meta line; none without one."""
    lists = (line.get("layers_logged") for line in first_objects(file) if line.get("type") == "meta")
    return {layer for listed in lists if isinstance(listed, list) for layer in listed if type(layer) is int}


def layers_in(file: InputFile, requests: dict[object, int]) -> dict[int, LayerLog]:
    """The rows of each layer; new requests get the next numbers. ValueError if a line lacks a field."""
    named = bool(NAMED.search(file.head_text))
    table = lines_of_type(table_of_lines(file, FIELDS | {"req_id": pa.string() if named else pa.int64()}), "route")
    layer_R, token_R = numbers_in(table, "layer", MAX_LAYERS - 1), numbers_in(table, "token_idx")
    encoded = table["req_id"].fill_null("" if named else -1).dictionary_encode().unify_dictionaries().combine_chunks()
    numbers = [requests.setdefault(name, len(requests)) for name in encoded.dictionary.to_pylist()]
    request_R = np.array(numbers, np.int64)[encoded.indices.to_numpy()]
    experts_RK = lists_of(table, "topk_ids", "row")
    weights_RK = optional_lists(table, "topk_weights", experts_RK, np.nan)
    if weights_RK is None:
        weights_RK = np.full(experts_RK.shape, np.nan, np.float32)
    rows = {int(layer): np.flatnonzero(layer_R == layer) for layer in np.unique(layer_R)}
    return {layer: LayerLog(request_R[at], token_R[at], experts_RK[at], weights_RK[at]) for layer, at in rows.items()}


def together(logs: dict[int, LayerLog]) -> tuple[LoggedChoices, list[str]]:
    """The rows that all layers have at the same place with the same request and token, and remarks; ValueError if there are none."""
    layers = sorted(logs)
    first, length = logs[layers[0]], min(len(log.token_N) for log in logs.values())
    alike_N = np.ones(length, bool)
    for layer in layers:
        if logs[layer].experts_NK.shape[1] != first.experts_NK.shape[1]:
            raise ValueError(f"layer {layer} has {logs[layer].experts_NK.shape[1]} choices, not {first.experts_NK.shape[1]}")
        alike_N &= logs[layer].token_N[:length] == first.token_N[:length]
        alike_N &= logs[layer].request_N[:length] == first.request_N[:length]
    if not alike_N.any():
        raise ValueError("no row of all layers agrees in req_id and token_idx")
    at = np.flatnonzero(alike_N)
    choices = LoggedChoices(
        np.stack([logs[layer].experts_NK[at] for layer in layers], axis=1),
        layers,
        step_T=np.arange(len(at)),
        sequence_T=first.request_N[at],
        position_T=first.token_N[at],
        decode_T=np.ones(len(at), bool),
        weights_TLK=np.stack([logs[layer].weights_NK[at] for layer in layers], axis=1),
    )
    return choices, list(remarks(logs, len(at)))


def remarks(logs: dict[int, LayerLog], kept: int) -> Iterator[str]:
    """What the log lacks."""
    if lost := sum(len(log.token_N) - kept for log in logs.values()):
        yield f"rows whose req_id and token_idx are not those of the other layers at the same place: {lost:,}, left out"
    yield NO_PHASES


VLLM_LOG = TraceFormat(NAME, "a routing log of vLLM (*.jsonl)", recognise=is_log, read=read_log)
