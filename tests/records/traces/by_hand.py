"""Writers of formats that moeprof only reads; T tokens, L layers, K choices."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moeprof.records.traces.count_arrays import added_up
from moeprof.records.traces.counting import counted
from moeprof.records.traces.logs.sequences import cube_of
from moeprof.records.traces.trace_format import TraceFile
from tests.records.traces.dumps.test_imatrix import counts, gguf

Row = tuple[int, int, int, list[int]]


def rows_of(file: TraceFile) -> Iterator[Row]:
    """Sequence, position, layer and experts of every token and layer."""
    cube = cube_of(file)
    for token, position in enumerate(cube.position_T.tolist()):
        for place, layer in enumerate(cube.layers):
            yield int(cube.group_T[token]), position, int(layer), cube.experts_TLK[token, place].tolist()


def write_vllm_log(file: TraceFile, path: Path) -> None:
    """A line per token and layer."""
    lines = [
        {"type": "route", "req_id": f"r{sequence}", "token_idx": position, "layer": layer, "topk_ids": experts}
        for sequence, position, layer, experts in rows_of(file)
    ]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in [{"type": "meta", "layers_logged": []}, *lines]))


def write_router_data(file: TraceFile, path: Path) -> None:
    """A document per sequence."""
    documents: dict[int, dict[str, dict[str, object]]] = {}
    for sequence, position, layer, experts in rows_of(file):
        token = documents.setdefault(sequence, {}).setdefault(f"token_{position}", {})
        token[f"layer_{layer}"] = {"selected_experts": experts, "selected_probs": [1.0] * len(experts)}
    listed = [{"router_data": [{name: layers} for name, layers in tokens.items()]} for tokens in documents.values()]
    path.write_text(json.dumps(listed))


def write_score_lists(file: TraceFile, path: Path) -> None:
    """A row per token and layer."""
    sequence, position, layer, experts = zip(*rows_of(file), strict=True)
    table = {"sequence": sequence, "token": position, "layer": layer, "indices": pa.array(experts, pa.list_(pa.int16()))}
    pq.write_table(pa.table(table), path)


def write_imatrix(file: TraceFile, path: Path) -> None:
    """The counts of every projection, without the number of tokens."""
    table = file.counts or counted(file.traces)
    rows = zip(table.layers, added_up(table).astype(np.float32).tolist(), strict=True)
    tensors = {name: row for layer, values in rows for name, row in counts(layer, *values).items()}
    gguf(path, tensors, {"general.type": "imatrix"})


BY_HAND: dict[str, Callable[[TraceFile, Path], None]] = {
    "vllm-log": write_vllm_log,
    "router-data": write_router_data,
    "score-lists": write_score_lists,
    "imatrix": write_imatrix,
}
"""By the name of the format."""
