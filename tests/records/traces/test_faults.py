"""Each format with each fault of an input is refused in two lines, or handled as docs/traces.md states."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from moeprof.records.errors import UsageError
from moeprof.records.placement_formats.registry import placement_format_of
from moeprof.records.system.inputs import InputFile
from moeprof.records.traces.layer_map import LayerMap
from tests.fuzz.samples import ALL_LAYERS, CHOSEN, LOADS, TORCH, TRACES, lines, parquet_bytes, saved_by, torch_bytes

from .dumps.dumped import fault, per_pass, per_token, read, recording

STATED: dict[str, Any] = {"layers": (1, 2), "top_k": 2}
OWN_LAYERS = ("route-csv-batch", "cache-lab-stages")
"""Samples of two stacks of layers, to which `--layers` does not apply."""

ANY_TOP_K = ("ktransformers", "eplb", "count-csv", "eplb-stats", "sglang-location", "sglang-stat", "sglang-per-pass")
"""How formats begin that do not state the choices of a token: `--top-k` does."""

ANY_LAYERS = ("eplb", "vllm-lists")
"""How formats begin that do not state the numbers of their two layers: `--layers` does."""

FILES = [name for name in sorted(TRACES) if not name.startswith(OWN_LAYERS)]


def stored(tmp_path: Path, content: bytes) -> Path:
    """A file whose name says nothing."""
    (tmp_path / "file").write_bytes(content)
    return tmp_path / "file"


def options(**other: Any) -> dict[str, Any]:
    """What is stated about the samples, with changes."""
    found = STATED | other
    return found | {"layers": LayerMap(found["layers"])}


@pytest.mark.parametrize("name", sorted(TRACES))
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    assert fault(stored(tmp_path, b"")).endswith("an empty file")
    assert fault(stored(tmp_path, TRACES[name][:1]))


@pytest.mark.parametrize("name", sorted(TRACES))
@pytest.mark.parametrize("part", [1 / 3, 2 / 3])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, part: float) -> None:
    whole = TRACES[name]
    cut = whole[: int(len(whole) * part)].rstrip(b"\n")
    stated = {} if name.startswith(OWN_LAYERS) else options()
    words = ("truncated", "damaged", "columns, got", "bytes of data", "not a table", "of 2 choices", "no choices", "empty")
    assert any(word in fault(stored(tmp_path, cut), **stated) for word in words)


@pytest.mark.parametrize("name", FILES)
def test_other_choices_of_a_token_than_the_file_has_are_refused(tmp_path: Path, name: str) -> None:
    if name.startswith(ANY_TOP_K) or name == "eplb-stats-map":
        counts = read(stored(tmp_path, TRACES[name]), **options(top_k=1)).counts
        assert counts is not None
        assert counts.top_k == 1
    else:
        assert fault(stored(tmp_path, TRACES[name]), **options(top_k=3))


@pytest.mark.parametrize("name", FILES)
def test_fewer_experts_than_the_file_has_are_refused(tmp_path: Path, name: str) -> None:
    assert "2" in fault(stored(tmp_path, TRACES[name]), **options(experts=2))


@pytest.mark.parametrize("name", FILES)
def test_layers_that_do_not_fit_are_refused(tmp_path: Path, name: str) -> None:
    if name.startswith(ANY_LAYERS):
        assert "layers" in fault(stored(tmp_path, TRACES[name]), **options(layers=(1, 2, 3)))
    else:
        assert "layer" in fault(stored(tmp_path, TRACES[name]), **options(layers=(5, 6)))


def first(name: str, old: bytes, new: bytes) -> bytes:
    """A sample with the first place of a text changed."""
    assert old in TRACES[name]
    return TRACES[name].replace(old, new, 1)


def of_torch(name: str, change: Callable[[Any], Any]) -> bytes:
    """A sample of torch with a changed document."""
    return torch_bytes(change(TORCH[name]))


def base64_of(array: Any) -> bytes:
    """A response of vLLM with this array."""
    text = base64.b64encode(saved_by(np.save, array)).decode()
    return lines({"choices": [{"routed_experts": text, "token_ids": [1, 2]}], "usage": {"prompt_tokens": 5}})


def changed(array: Any, number: float) -> Any:
    """The array with a number in its middle."""
    found = np.array(array)
    found[len(found) // 2, -1, 0] = number
    return found


HALF = CHOSEN + 0.5
NAN = [[5, float("nan"), 2, 2], [1, 4, 4, 3]]
FAULTY = {
    "a value that is no expert: route-csv": first("route-csv", b'"",1,0,2,', b'"",1,0,-1,'),
    "a value that is no expert: route-csv, half": first("route-csv", b'"",1,0,2,', b'"",1,0,2.5,'),
    "a value that is no expert: vllm-lists": json.dumps({"prompt_routed_experts": changed(CHOSEN, -1).tolist()}).encode(),
    "a value that is no expert: vllm-lists, first position of one layer": json.dumps(
        {"prompt_routed_experts": [[[-1, -1], [0, 1]], *CHOSEN.tolist()]}
    ).encode(),
    "a value that is no expert: vllm-base64": base64_of(changed(ALL_LAYERS, -1)),
    "a value that is no expert: vllm-npy": saved_by(np.save, changed(ALL_LAYERS, -1)),
    "a value that is no expert: vllm-npy, half": saved_by(np.save, HALF),
    "a value that is no expert: vllm-log": first("vllm-log", b'"topk_ids": [3, 2]', b'"topk_ids": [3, -1]'),
    "a value that is no expert: cache-lab": first("cache-lab", b'_experts": [2, 4]', b'_experts": [2, -1]'),
    "a value that is no expert: cache-lab, half": first("cache-lab", b'_experts": [2, 4]', b'_experts": [2, 4.5]'),
    "a value that is no expert: selections": first("selections", b"[7, 3]", b"[7, -1]"),
    "a value that is no expert: selections, half": first("selections", b"[7, 3]", b"[7, 3.5]"),
    "a value that is no expert: router-data": first("router-data", b"[3, 2]", b"[3, -1]"),
    "a value that is no expert: router-data, text": first("router-data", b"[3, 2]", b'[3, "a"]'),
    "a value that is no expert: score-lists": parquet_bytes(
        {"token": [0, 1], "layer": [1, 1], "scores": [[0.5, 0.5]] * 2, "indices": [[0, 1], [1, -1]]}
    ),
    "a value that is no expert: sglang-per-token": torch_bytes(
        {
            "records": [
                per_token(7, [[[]] * 3, *CHOSEN[:3].swapaxes(0, 1).tolist()]) | {"topk_ids_of_layer": torch.tensor(HALF)}
            ],
            "last_physical_to_logical_map": torch.tensor([[0, 1, 2, 3]] * 3),
        }
    ),
    "a value that is no count: counts": first("counts", b"[5, 3", b"[5, NaN"),
    "a value that is no count: load-json": first("load-json", b"[5, 3", b"[5, NaN"),
    "a value that is no count: count-csv": first("count-csv", b"1,1,3", b"1,1,nan"),
    "a value that is no count: count-csv, negative": first("count-csv", b"1,1,3", b"1,1,-3"),
    "a value that is no count: sglang-location": first("sglang-location", b"[5, 3", b"[5, NaN"),
    "a value that is no count: eplb-stats": first("eplb-stats", b"[5, 3", b"[5, NaN"),
    "a value that is no count: ktransformers": torch_bytes(torch.tensor([[0.0] * 4, *NAN])),
    "a value that is no count: eplb, torch": of_torch("eplb-torch", lambda one: one | {"weight": torch.tensor(NAN)}),
    "a value that is no count: eplb, numpy": saved_by(np.save, np.array(NAN)),
    "a value that is no count: sglang-stat": of_torch("sglang-stat", lambda one: one | {"logical_count": torch.tensor([NAN])}),
    "another number of dimensions: vllm-npy": saved_by(np.save, CHOSEN[0, 0]),
    "another number of dimensions: vllm-base64": base64_of(CHOSEN[0]),
    "another number of dimensions: vllm-lists": json.dumps({"prompt_routed_experts": CHOSEN[0].tolist()}).encode(),
    "another number of dimensions: selections": first("selections", b"[[7, 3], [3, 0]]", b"[7, 3]"),
    "another number of dimensions: sglang-stat": of_torch("sglang-stat", lambda one: one | {"logical_count": torch.ones(4)}),
    "another number of dimensions: ktransformers": torch_bytes(torch.ones(1, 2, 3, 4)),
    "another number of dimensions: eplb": of_torch("eplb-torch", lambda one: one | {"weight": torch.tensor(LOADS[0])}),
    "another number of dimensions: sglang-location": b'{"logical_count": [5, 3, 2, 2]}',
    "another number of dimensions: eplb-stats": first("eplb-stats", b"[[5, 3, 2, 2], [1, 4, 4, 3]]", b"[5, 3, 2, 2]"),
}
"""Files by what is wrong with them."""


@pytest.mark.parametrize("what", FAULTY)
def test_a_value_or_a_shape_that_cannot_be_is_refused(tmp_path: Path, what: str) -> None:
    assert fault(stored(tmp_path, FAULTY[what]), **options())


@pytest.mark.parametrize("named", ["sglang", "ktransformers", "eplb", "sglang-location"])
def test_a_pickle_with_code_is_not_run(tmp_path: Path, named: str) -> None:
    torch.save({"logical_count": [Path("a")]}, tmp_path / "file.pt")
    assert "weights_only" in fault(tmp_path / "file.pt", named=named)


def test_a_pickle_in_no_archive_is_not_run(tmp_path: Path) -> None:
    torch.save(torch.ones(2, 2), tmp_path / "file.pt", _use_new_zipfile_serialization=False)
    assert "a bare pickle, which is not run" in fault(tmp_path / "file.pt", named="ktransformers")
    assert fault(tmp_path / "file.pt").endswith("a Python pickle")


def test_the_remedy_is_the_option_that_the_file_contradicts(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"but there are 2 experts\nCorrect or remove --experts or --model-config\.$"):
        read(stored(tmp_path, TRACES["vllm-lists"]), **options(experts=2))


def test_rows_without_choices_of_tokens_that_have_some_are_counted(tmp_path: Path) -> None:
    """One of three tokens has no choices in the second layer of a dump."""
    layers = [[[]] * 3, [[0, 1], [1, 2], [2, 3]], [[0, 1], [], [2, 3]]]
    found = read(recording(tmp_path / "dump.pt", [per_token(7, layers)], [[0, 1, 2, 3]] * 3))
    assert found.report is not None
    assert (found.report.kept, "rows without choices, of tokens that have some in other layers: 1" in found.report.notes) == (
        5,
        True,
    )


def test_a_log_of_a_cache_study_without_selections_is_no_placement(tmp_path: Path) -> None:
    meta = b'{"type": "metadata", "num_experts": 4, "top_k": 2}\n'
    assert "placement" not in fault(stored(tmp_path, meta))


def test_ranks_of_different_passes_are_refused(tmp_path: Path) -> None:
    ranks = [recording(tmp_path / f"{rank}.pt", [per_pass(3 + rank, [[1, 2]])], [[0, 1]], rank) for rank in range(2)]
    assert "forward pass" in fault(*ranks)


def test_no_trace_is_taken_for_a_placement(tmp_path: Path) -> None:
    """The header of a Parquet file has the keys of a placement."""
    taken = {name: placement_format_of(InputFile(stored(tmp_path, content))) for name, content in TRACES.items()}
    assert {name for name, entry in taken.items() if entry is not None} <= {"eplb-torch"}  # it has loads and the map
