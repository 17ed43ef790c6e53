"""The format `load-json`: {"model": {"top_k_experts": K}, "layers": [{"layer": number, "counts": [E]}]}."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moeprof.records.limits import MAX_LAYERS
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.count_arrays import added_up, checked_array, counts_file, counts_of, rows_of, whole_counts
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

LAYERS = re.compile(r'"layers"\s*:\s*\[\s*\{')


def is_load_json(file: InputFile) -> bool:
    """Whether the file is a JSON object with a list of layers, each with its counts."""
    text = file.head_text
    return text.lstrip().startswith("{") and bool(LAYERS.search(text)) and '"counts"' in text


def read_load_json(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """The counts of the layers that the file names; UsageError if they are none."""
    source = only(files)
    with reported(
        f"load table {source.path}",
        'Give {"model": {"top_k_experts": K}, "layers": [{"layer": N, "counts": a number per expert}]}.',
    ):
        document = source.json()
        layers = numbered_layers(document)
        values = checked_array(rows_of([layer["counts"] for layer in document["layers"]], "counts"), "counts", [2])
        found, notes = whole_counts(values, "counts")
        counts_SLE = np.zeros((1, max(layers) + 1, found.shape[1]), np.int64)
        counts_SLE[0, layers] = found
        return counts_file(source, "load-json", counts_SLE, options, "stated", notes, top_k_of(document))


def numbered_layers(document: Any) -> list[int]:
    """The numbers of the layers; ValueError if an entry has none, or one occurs twice."""
    entries = document.get("layers") if isinstance(document, dict) else None
    if not isinstance(entries, list) or not entries:
        raise ValueError("it has no list of layers")
    for place, entry in enumerate(entries):
        number = entry.get("layer") if isinstance(entry, dict) and "counts" in entry else None
        if type(number) is not int or not 0 <= number < MAX_LAYERS:
            raise ValueError(f"entry {place} of layers has no counts, or no number of a layer")
    numbers = [entry["layer"] for entry in entries]
    if twice := [number for number in numbers if numbers.count(number) > 1]:
        raise ValueError(f"layer {twice[0]} occurs twice")
    return numbers


def top_k_of(document: dict[str, Any]) -> int | None:
    """How many experts a token uses, if the file says; ValueError if that is no number from 1."""
    model = document.get("model")
    top_k = model.get("top_k_experts") if isinstance(model, dict) else None
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise ValueError(f"top_k_experts = {json.dumps(top_k)[:40]} is no whole number from 1")
    return top_k


def write_load_json(file: TraceFile, path: Path) -> None:
    """Writes the counts of all steps and domains with one line per layer."""
    counts = counts_of(file)
    rows = zip(counts.layers, added_up(counts).tolist(), strict=True)
    lines = ",\n".join(f"  {json.dumps({'layer': layer, 'counts': row})}" for layer, row in rows)
    model = json.dumps({"name": counts.model, "top_k_experts": counts.top_k})
    write_text(path, f'{{"model": {model},\n "layers": [\n{lines}\n ]}}\n')


LOAD_JSON = TraceFormat(
    "load-json",
    "a table of loads by layer (*.json)",
    recognise=is_load_json,
    read=read_load_json,
    write=write_load_json,
    loads_only=True,
)
