"""A small valid file of every format, as bytes; four or eight experts in the layers 1 and 2, two choices of a token."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from moeprof.records.placement import Placement
from moeprof.records.placement_formats.placement_format import PlacementFacts
from moeprof.records.placement_formats.registry import PLACEMENT_FORMATS
from moeprof.records.traces.choice_counts import ChoiceCounts
from moeprof.records.traces.formats import FORMATS
from moeprof.records.traces.trace_format import TraceFile
from tests.records.traces.dumps.dumped import per_pass, per_token
from tests.records.traces.dumps.test_imatrix import counts, gguf
from tests.records.traces.logged import random_experts
from tests.records.traces.logs.again import random_file

LAYERS, EXPERTS, TOP_K = (1, 2), 4, 2
CHOSEN = random_experts(6, len(LAYERS), TOP_K, EXPERTS)
"""The choices of six tokens, (T, L, K)."""

ALL_LAYERS = np.concatenate([np.zeros((6, 1, 2), np.int32), CHOSEN.astype(np.int32)], axis=1)
"""The same with a dense layer before them."""

LOADS = np.array([[5, 3, 2, 2], [1, 4, 4, 3]])
MAP = [[0, 1, 2, 3, 0, 1]] * 3
"""Six physical experts in three layers."""

TORCH: dict[str, Any] = {
    "sglang-stat": {
        "rank": 0,
        "logical_count": torch.tensor([[[0] * 4, *LOADS.tolist()], [[0] * 4] * 3], dtype=torch.int32),
        "average_utilization_rate_over_window": None,
    },
    "sglang-per-pass": {
        "records": [per_pass(3, [[0] * 6, *[[1, 2, 0, 1, 3, 1]] * 2]), per_pass(4, [[0] * 6, *[[2, 0, 0, 1, 4, 1]] * 2])],
        "last_physical_to_logical_map": torch.tensor(MAP),
    },
    "sglang-per-token": {
        "records": [
            per_token(7, [[[]] * 3, *CHOSEN[:3].swapaxes(0, 1).tolist()]),
            per_token(8, [[[]], *CHOSEN[3:4].swapaxes(0, 1).tolist()], mode=2, positions=[3]),
        ],
        "last_physical_to_logical_map": torch.tensor(MAP),
    },
    "ktransformers": torch.tensor(np.concatenate([LOADS[:1] * 0, LOADS])),
    "eplb-torch": {"weight": torch.tensor(LOADS * 100.0), "num_replicas": 6, "phy2log": torch.tensor(MAP[:2])},
    "ktransformers-dict": {"logical_count": torch.tensor(np.stack([LOADS[0] * 0, *LOADS]))},
}
"""Documents of torch.save."""

TORCH_MAPS: dict[str, Any] = {
    "sglang-location": {"physical_to_logical_map": torch.tensor(MAP)},
    "eplb": {"phy2log": torch.tensor(MAP[:2]), "logcnt": torch.tensor([[2, 2, 1, 1]] * 2), "num_gpus": 2},
}
"""Placements as documents of torch.save."""

Table = dict[str, Any]
SCORES: Table = {
    "token": np.repeat(np.arange(6), 2),
    "layer": [1, 2] * 6,
    "scores": pa.array([[0.75, 0.25]] * 12, pa.list_(pa.float32())),
    "indices": pa.array(CHOSEN.reshape(12, 2).tolist(), pa.list_(pa.int16())),
}


def lines(*records: dict[str, Any]) -> bytes:
    """JSON lines."""
    return "".join(f"{json.dumps(record)}\n" for record in records).encode()


def torch_bytes(document: Any) -> bytes:
    """What torch.save writes."""
    torch.save(document, stream := io.BytesIO())
    return stream.getvalue()


def parquet_bytes(table: Table) -> bytes:
    """A Parquet file."""
    pq.write_table(pa.table(table), stream := io.BytesIO())
    return stream.getvalue()


def saved_by(save: Callable[..., None], *arrays: Any, **named: Any) -> bytes:
    """What NumPy writes."""
    save(stream := io.BytesIO(), *arrays, **named)
    return stream.getvalue()


def routes(record: dict[str, Any], position: str, ids: str, weights: str) -> list[dict[str, Any]]:
    """A record for every token and layer."""
    return [
        record | {position: token, "layer": layer, ids: CHOSEN[token, place].tolist(), weights: [0.75, 0.25]}
        for token in range(len(CHOSEN))
        for place, layer in enumerate(LAYERS)
    ]


def by_hand(folder: Path) -> dict[str, bytes]:
    """Files that moeprof does not write, or writes in another form."""
    npy = base64.b64encode(saved_by(np.save, ALL_LAYERS.astype(np.uint8))).decode()
    in_lists = {"prompt_routed_experts": CHOSEN[:4].tolist(), "choices": [{"routed_experts": CHOSEN[4:].tolist()}]}
    select = {"type": "routing_selection", "phase": "decode"}
    meta = {"type": "metadata", "num_experts": EXPERTS, "top_k": TOP_K}
    fields = ("token_position", "selected_experts", "selected_probabilities")
    tokens = [
        {
            f"token_{token}": {
                f"layer_{layer}": {"selected_experts": one.tolist()} for layer, one in zip(LAYERS, chosen, strict=True)
            }
        }
        for token, chosen in enumerate(CHOSEN)
    ]
    stats = {"record_type": "eplb_load_stats", "step": 0, "expert_load": [[1, 2, 0, 1, 3, 1]] * 2, "p2l_map": MAP[:2]}
    named = {f"rank{place}.csv": f"layer_id,expert_id,count\n1,0,{place}\n2,3,4\n" for place in range(2)}
    return {
        "route-csv-batch": (
            b"# n_expert=4 n_expert_used=1\nphase,turn,sequence,domain,step,position,stack,layer,slot,expert,dropped,weight\n"
            b"2,0,0,en,0,0,enc,1,0,3,0,0.5\n1,0,0,en,1,0,dec,1,0,2,0,0.5\n1,1,0,de,1,0,dec,1,0,1,1,0.5\n"
        ),
        "vllm-lists": json.dumps(in_lists).encode(),
        "vllm-base64": lines({"choices": [{"routed_experts": npy, "token_ids": [1, 2]}], "usage": {"prompt_tokens": 5}}),
        "vllm-npy": saved_by(np.save, ALL_LAYERS),
        "vllm-npz": saved_by(np.savez, a=ALL_LAYERS, b=ALL_LAYERS[:2]),
        "vllm-log": lines(
            {"type": "meta", "layers_logged": [1, 2], "top_k": 2},
            *routes({"type": "route", "req_id": "a"}, "token_idx", "topk_ids", "topk_weights"),
        ),
        "cache-lab-stages": lines(
            meta,
            *routes(select | {"stage": "encoder"}, *fields),
            *routes(select | {"stage": "decoder", "dropped": [False, True]}, *fields),
        ),
        "router-data": json.dumps({"router_data": tokens}).encode(),
        "score-lists": parquet_bytes(SCORES),
        "eplb-stats-map": lines({"record_type": "eplb_load_meta", "version": 1, "num_layers": 2}, stats, stats | {"step": 1}),
        "count-csv-ids": named["rank1.csv"].encode(),
        "imatrix": gguf(folder / "imatrix", counts(1, 6, 3, 2, 1) | counts(2, 2, 4, 3, 3)).read_bytes(),
    }


def written(folder: Path) -> dict[str, bytes]:
    """Files of every format of traces and counts that moeprof writes, but folders."""
    found, chat = {}, random_file([5, 4], 2, 2, 2, seed=1, first_layer=1)
    prompts = random_file([5, 4], 9, 2, 2, seed=2, first_layer=1)
    table = ChoiceCounts(list(LAYERS), {"all": LOADS[None]}, TOP_K)
    for name, entry in FORMATS.items():
        if entry.write and name != "run":
            held = TraceFile("counts", counts=table) if entry.loads_only else prompts if name == "selections" else chat
            entry.write(held, folder / name)
            found[name] = (folder / name).read_bytes()
    entry = FORMATS["eplb"]
    assert entry.write is not None
    entry.write(TraceFile("counts", counts=table), folder / "eplb.npy")
    return found | {"eplb-npy": (folder / "eplb.npy").read_bytes(), "run": run_file(folder, prompts)}


def run_file(folder: Path, file: TraceFile) -> bytes:
    """A trace of moeprof."""
    file.traces[0].write(folder / "run.parquet")
    return (folder / "run.parquet").read_bytes()


def trace_samples(folder: Path) -> dict[str, bytes]:
    """A file of every format of traces and counts, some in several forms."""
    return written(folder) | by_hand(folder) | {name: torch_bytes(document) for name, document in TORCH.items()}


def placement_samples(folder: Path) -> dict[str, bytes]:
    """A file of every format of placements."""
    placement, found = Placement(4, {"1": ((0, 1, 2), (3, 0, 1)), "2": ((0, 1, 2), (3, 0, 1))}), {}
    for name, entry in PLACEMENT_FORMATS.items():
        entry.write(placement, folder / name, PlacementFacts())
        found[name] = (folder / name).read_bytes()
    return found | {f"{name}-document": torch_bytes(document) for name, document in TORCH_MAPS.items()}


with TemporaryDirectory() as made:
    TRACES = trace_samples(Path(made))
    PLACEMENTS = placement_samples(Path(made))
