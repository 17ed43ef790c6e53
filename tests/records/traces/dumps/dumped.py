"""Small files as other tools write them, and what reading gives."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from moeprof.records.errors import UsageError
from moeprof.records.traces.count_arrays import added_up
from moeprof.records.traces.counting import counted
from moeprof.records.traces.formats import read_recording
from moeprof.records.traces.import_options import ImportOptions
from moeprof.records.traces.trace_format import TraceFile

SAMPLES = Path(__file__).resolve().parents[4].parent / "shared" / "traces"
"""Real files of other tools, which may be absent."""


def sample(name: str) -> Path:
    """A real file beside the checkout; the test is skipped if it is absent."""
    found = sorted(SAMPLES.glob(name))
    if not found:
        pytest.skip(f"no sample {name} at {SAMPLES}")
    return found[0]


def saved(path: Path, document: Any) -> Path:
    """A file of torch.save."""
    torch.save(document, path)
    return path


def read(*paths: Path, named: str | None = None, **options: Any) -> TraceFile:
    """The content of the files of one recording."""
    return read_recording(paths, loads_only=True, options=ImportOptions(format=named, **options))


def loads(file: TraceFile) -> dict[int, list[int]]:
    """Choices of every expert over all steps, by layer."""
    counts = file.counts or counted(file.traces)
    return dict(zip(counts.layers, added_up(counts).tolist(), strict=True))


def notes(file: TraceFile) -> list[str]:
    """What the import reports, as lines."""
    assert file.report is not None
    return list(file.report.lines)


def fault(*paths: Path, named: str | None = None, **options: Any) -> str:
    """The first of the two lines with which the files are refused."""
    with pytest.raises(UsageError) as caught:
        read(*paths, named=named, **options)
    assert str(caught.value).count("\n") == 1
    return caught.value.what


def per_pass(number: int, counts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """A record of counts of physical experts, layer by layer."""
    return {
        "forward_pass_id": number,
        "rank": 0,
        "gatherer_key": "primary",
        "global_physical_count": torch.tensor(counts, dtype=torch.int32),
    }


def per_token(number: int, ids: Sequence[Sequence[Sequence[int]]], mode: int = 1, **changes: Any) -> dict[str, Any]:
    """A record of ids of physical experts, [layers][tokens][choices], in the fixed width of 8."""
    wide = torch.full((len(ids), len(ids[0]), 8), -1, dtype=torch.int32)
    for layer, tokens in enumerate(ids):
        for token, chosen in enumerate(tokens):
            wide[layer, token, : len(chosen)] = torch.tensor(chosen, dtype=torch.int32)
    size = len(ids[0])
    usual: dict[str, Any] = {"input_ids": [100 + place for place in range(size)], "positions": list(range(size))}
    usual |= {"extend_seq_lens": [size] if mode == 1 else None, "forward_mode": mode, "topk_ids_of_layer": wide}
    return {"forward_pass_id": number, "rank": 0, "gatherer_key": "primary", "misc_objects": []} | usual | changes


def recording(path: Path, records: Sequence[dict[str, Any]], mapped: Sequence[Sequence[int]], rank: int = 0) -> Path:
    """A rank's file."""
    of_rank = [record | {"rank": rank} if "rank" in record else record for record in records]
    return saved(path, {"records": of_rank, "last_physical_to_logical_map": torch.tensor(mapped)})
