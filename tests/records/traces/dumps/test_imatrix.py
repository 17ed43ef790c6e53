"""llama.cpp's importance matrix has the load of every expert, and the older format has not."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from moeprof.records.traces.layer_map import LayerMap
from tests.records.traces.dumps.dumped import fault, loads, notes, read, sample

CHUNKS = {"general.type": "imatrix", "imatrix.chunk_count": 2, "imatrix.chunk_size": 3, "imatrix.datasets": ["text.txt"]}


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def value(one: Any) -> bytes:
    if isinstance(one, str):
        return struct.pack("<I", 8) + string(one)
    if isinstance(one, list):
        return struct.pack("<IIQ", 9, 8, len(one)) + b"".join(map(string, one))
    return struct.pack("<II", 4, one)


def gguf(path: Path, tensors: Mapping[str, Sequence[float]], metadata: Mapping[str, Any] = CHUNKS, version: int = 3) -> Path:
    """A file with tensors of shape [1, E], each at a place of its own."""
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(metadata))
    head += b"".join(string(key) + value(one) for key, one in metadata.items())
    data = b""
    for name, values in tensors.items():
        head += string(name) + struct.pack("<IQQIQ", 2, 1, len(values), 0, len(data))
        data += struct.pack(f"<{len(values)}f", *values).ljust(32 * -(-len(values) // 8), b"\0")
    path.write_bytes(head.ljust(32 * -(-len(head) // 32), b"\0") + data)
    return path


def counts(layer: int, *values: float, kinds: Sequence[str] = ("gate", "up", "down")) -> dict[str, Sequence[float]]:
    return {f"blk.{layer}.ffn_{kind}_exps.weight.counts": values for kind in kinds}


def test_counts_have_the_numbers_of_their_layers_and_the_choices_of_a_token(tmp_path: Path) -> None:
    tensors = counts(2, 6, 4, 2) | counts(10, 1, 5, 6) | {"blk.0.ffn_gate.weight.counts": [6], "blk.2.x.in_sum2": [1, 2]}
    file = read(gguf(tmp_path / "a.gguf", tensors), layers=LayerMap(tuple(range(1, 11)), 11))
    assert loads(file) == {2: [6, 4, 2], 10: [1, 5, 6]}
    assert file.counts is not None
    assert file.counts.top_k == 2
    assert notes(file) == ["layer 1 has experts, but no choices; further such layers: 7"]


def test_layers_with_other_sums_or_counts_of_other_projections_are_no_contradiction(tmp_path: Path) -> None:
    file = read(gguf(tmp_path / "a.gguf", counts(1, 6, 5) | counts(2, 1, 1, kinds=["gate_up"])))
    assert file.counts is not None
    assert file.counts.top_k is None
    (note,) = notes(read(gguf(tmp_path / "b.gguf", counts(1, 6, 6) | counts(1, 5, 5, kinds=["down"]))))
    assert note.startswith("layer 1 has other counts for its down projection")


def test_the_real_matrix_has_2048_choices_in_each_of_three_layers() -> None:
    file = read(sample("llamacpp/imatrix.gguf"))
    assert {layer: sum(row) for layer, row in loads(file).items()} == {1: 2048, 2: 2048, 3: 2048}
    assert file.counts is not None
    assert file.counts.top_k == 2


@pytest.mark.parametrize(
    ("tensors", "metadata", "why"),
    [
        ({"blk.0.ffn_gate.weight.counts": [6]}, CHUNKS, "no counts of experts in it"),
        (counts(1, 6, float("nan")), CHUNKS, "not finite"),
        (counts(1, 6, 6) | counts(2, 12), CHUNKS, "layers have different numbers of experts"),
        (counts(1, 6, 6), {"general.type": "model", "x": "imatrix"}, "GGUF of the type 'model', not an imatrix"),
        (counts(1, 6, 6), CHUNKS | {"general.alignment": 0}, "general.alignment is 0"),
        (counts(1, 0, 0), CHUNKS, "no choices in it"),
    ],
)
def test_a_matrix_without_counts_is_refused(tmp_path: Path, tensors: Any, metadata: Any, why: str) -> None:
    assert why in fault(gguf(tmp_path / "a.gguf", tensors, metadata))


def test_the_older_format_and_another_version_are_refused(tmp_path: Path) -> None:
    name = b"blk.0.attn_q.weight"
    (tmp_path / "a.dat").write_bytes(struct.pack("<ii", 1, len(name)) + name + bytes(64))
    assert "the older format (.dat) has one count for all experts of a tensor" in fault(tmp_path / "a.dat")
    assert "GGUF version 9, not 2 or 3" in fault(gguf(tmp_path / "b.gguf", counts(1, 6, 6), version=9))


def test_a_matrix_that_ends_anywhere_is_refused_and_nothing_is_built_for_what_it_claims(tmp_path: Path) -> None:
    path = gguf(tmp_path / "a.gguf", counts(1, 6, 6))
    whole = path.read_bytes()
    for size in range(4, len(whole) - 32, 7):
        path.write_bytes(whole[:size])
        fault(path, named="imatrix")
    path.write_bytes(whole[:8] + struct.pack("<QQ", 2**60, 2**60) + whole[24:])
    assert "more than 262,144 tensors" in fault(path, named="imatrix")
    path.write_bytes(whole.replace(struct.pack("<QQI", 1, 2, 0), struct.pack("<QQI", 2**62, 2**62, 0)))
    assert "truncated: tensor blk.1.ffn_gate_exps.weight.counts ends behind the file" in fault(path, named="imatrix")
