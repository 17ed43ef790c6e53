"""The format `cache-lab`: JSON lines of a study of expert caches.

A line `{"type": "metadata", ...}` with `num_experts` and `top_k`, then a line per token and layer `{"type": "routing_selection", "phase",
"token_position", "layer", "selected_experts", "selected_probabilities", "token_id"}`. Version 2 adds `stage` (`encoder`, `decoder`) and
`dropped`, one flag per choice that an expert's capacity did not admit. moeprof also writes `sequence`; without it a new sequence begins
where a position comes again.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from moeprof.records.errors import UsageError
from moeprof.records.limits import MAX_LAYERS
from moeprof.records.name import name_from
from moeprof.records.system.files import write_text
from moeprof.records.system.inputs import InputFile, reported
from moeprof.records.traces.choices import NO_EXPERT, Ids
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
from moeprof.records.traces.logs.rows import ChoiceRows, choices_of, sequences_of
from moeprof.records.traces.trace_format import TraceFile, TraceFormat, only

NAME = "cache-lab"
PROMPT, DECODED = ("prefill", "prompt", "encode"), ("decode", "generation", "generate")
STAGES = {"encoder": "enc", "decoder": "dec"}
FIELDS = {
    "type": pa.string(),
    "phase": pa.string(),
    "stage": pa.string(),
    "sequence": pa.int64(),
    "token_position": pa.int64(),
    "layer": pa.int64(),
    "token_id": pa.int64(),
    "selected_experts": pa.list_(pa.int32()),
    "selected_probabilities": pa.list_(pa.float32()),
    "dropped": pa.list_(pa.bool_()),
}


def is_cache_lab(file: InputFile) -> bool:
    """Whether the file begins with JSON that has the fields of a selection."""
    text = file.head_text
    return text.lstrip().startswith("{") and '"selected_experts"' in text and '"token_position"' in text


def read_cache_lab(files: Sequence[InputFile], options: ImportOptions) -> TraceFile:
    """One trace per phase; those of an encoder and a decoder have layers of their stacks. UsageError if the file is damaged."""
    file = only(files)
    with reported(
        f"cache-lab log {file.path}", "Give complete JSON lines with phase, token_position, layer and selected_experts."
    ):
        meta = next((line for line in first_objects(file) if line.get("type") == "metadata"), {})
        stated = Stated(
            NAME,
            name_from(file.path.name.partition(".")[0], "trace"),
            experts=count_of(meta, "num_experts"),
            top_k=count_of(meta, "top_k"),
            by_layer=True,
        )
        table = lines_of_type(table_of_lines(file, FIELDS), "routing_selection")
        if table["stage"].null_count == table.num_rows:
            rows = rows_of(table)
            check_numbers(np.unique(rows.layer_R).tolist(), options.layers)
            return imported(choices_of(rows), stated, options)
        return of_stages(table, stated, options)


def of_stages(table: pa.Table, stated: Stated, options: ImportOptions) -> TraceFile:
    """The traces of an encoder and of a decoder; all tokens of the decoder are decoded."""
    stage_R = np.array(table["stage"].to_pylist())
    if unknown := sorted({str(stage) for stage in stage_R} - {*STAGES}):
        raise ValueError(f"stage {unknown[0][:40]!r} is neither encoder nor decoder")
    sequence_R = sequence_of(table, (stage_R == "decoder").astype(np.int64))
    files = []
    for stage, stack in STAGES.items():
        at = np.flatnonzero(stage_R == stage)
        if len(at):
            rows = rows_of(table.take(pa.array(at)), sequence_R[at])
            rows = replace(rows, decode_R=np.full(len(rows), stage == "decoder"))
            names = [f"{stack}.{layer}" for layer in np.unique(rows.layer_R)]
            known = replace(stated, workload="mt", prompt_phase="encode")
            files.append(imported(choices_of(rows, names), known, options))
    return replace(files[0], traces=[trace for file in files for trace in file.traces])


def rows_of(table: pa.Table, sequence_R: Ids | None = None) -> ChoiceRows:
    """The rows of a table; ValueError if one lacks a field, or its phase is not known."""
    phases = table["phase"].dictionary_encode().unify_dictionaries().combine_chunks()
    names = phases.dictionary.to_pylist()
    if phases.null_count or (unknown := [name for name in names if name not in (*PROMPT, *DECODED)]):
        raise ValueError(f"phase {str(unknown[0] if not phases.null_count else None)[:40]!r} is not known")
    experts_RK = lists_of(table, "selected_experts", "row")
    known_ids = table["token_id"].null_count < table.num_rows
    return ChoiceRows(
        sequence_of(table) if sequence_R is None else sequence_R,
        numbers_in(table, "token_position"),
        np.isin(names, DECODED)[phases.indices.to_numpy()],
        numbers_in(table, "layer", MAX_LAYERS - 1),
        experts_RK,
        optional_lists(table, "selected_probabilities", experts_RK, np.nan),
        np.asarray(table["token_id"].fill_null(NO_EXPERT).to_numpy()) if known_ids else None,
        optional_lists(table, "dropped", experts_RK, missing=False),
    )


def sequence_of(table: pa.Table, *keys: Ids) -> Ids:
    """The number of the sequence of every row, as stated or by where positions come again."""
    if not table["sequence"].null_count:
        return numbers_in(table, "sequence")
    return sequences_of(numbers_in(table, "token_position"), numbers_in(table, "layer", MAX_LAYERS - 1), *keys)


def write_cache_lab(file: TraceFile, path: Path) -> None:
    """Writes one line per token and layer, phase after phase; UsageError if a layer has no number."""
    header = file.traces[0].header
    meta = {"type": "metadata", "version": 2, "top_k": header.top_k}
    if not file.experts_guessed:
        meta["num_experts"] = header.num_experts
    lines = [json.dumps(meta), *(json.dumps(line) for line in lines_of(file, path))]
    write_text(path, "\n".join(lines) + "\n")


def lines_of(file: TraceFile, path: Path) -> Iterator[dict[str, object]]:
    """The lines of all traces."""
    for trace in file.traces:
        codes, names = trace.codes("layer")
        if odd := [name for name in names if not name.rpartition(".")[2].isdecimal()]:
            raise UsageError(f"{path}: layer {odd[0]} has no number", "Write it as another format.")
        order = np.lexsort(
            [trace.column(name) for name in ("slot",)] + [codes] + [trace.column(n) for n in ("position", "sequence")]
        )
        columns = {
            name: trace.column(name)[order] for name in ("sequence", "position", "token_id", "expert", "weight", "dropped")
        }
        for start in range(0, len(trace), trace.header.top_k):
            part = {name: values[start : start + trace.header.top_k].tolist() for name, values in columns.items()}
            stack, _, number = names[codes[order[start]]].rpartition(".")
            yield line_of(part, trace.header.phase, stack, int(number))


def line_of(part: dict[str, list[float]], phase: str, stack: str, layer: int) -> dict[str, object]:
    """The line of one token and layer."""
    line: dict[str, object] = {"type": "routing_selection", "phase": "decode" if phase == "decode" else "prefill"}
    if stack:
        line["stage"] = next((stage for stage, short in STAGES.items() if short == stack), stack)
    line |= {"sequence": part["sequence"][0], "token_position": part["position"][0], "layer": layer}
    line["selected_experts"] = part["expert"]
    if not np.isnan(part["weight"]).any():
        line["selected_probabilities"] = part["weight"]
    if part["token_id"][0] != NO_EXPERT:
        line["token_id"] = part["token_id"][0]
    if any(part["dropped"]):
        line["dropped"] = part["dropped"]
    return line


CACHE_LAB = TraceFormat(
    NAME,
    "a cache-lab log (*.jsonl)",
    recognise=is_cache_lab,
    read=read_cache_lab,
    write=write_cache_lab,
    keeps=frozenset({"phase", "sequence", "position", "token_id", "weight", "dropped"}),
    derives=frozenset({"step"}),
    stacks=True,
    endings=(".cachelab.jsonl",),
)
