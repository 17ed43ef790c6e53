"""A file of packed experts takes the bytes that their precision promises, on the disk and from it, and gives the packed weights."""

from pathlib import Path

import pytest
import torch

from moeprof.records.errors import UsageError
from moeprof.records.ffn.mlp import MLP
from moeprof.records.precision import PRECISIONS, Precision
from moeprof.store.backing import BackingFile, Contents, LayerContents, backing
from moeprof.store.entry import EntryLayout
from moeprof.store.precision import pack, packed_contents, packing
from moeprof.store.resident import ExpertWeights

from .shelves import bytes_read, own_disk

NUM_EXPERTS = 4
LAYERS = ["1", "3"]
LAYOUT = EntryLayout(MLP.shapes(128, 192, bias=True), torch.float32)
"""The experts of lm-tiny: 49,472 numbers of 4 bytes in 49 pages."""
ORIGINAL = Contents(weights_hash="a hash", layers=dict.fromkeys(LAYERS, LayerContents.of(LAYOUT, NUM_EXPERTS)))
KEYS = [(layer, expert) for layer in LAYERS for expert in range(NUM_EXPERTS)]
PAGES = {"int8": 13, "int4": 8, "int2": 4}
"""2 x 128 x 192 weights of 1, 1/2 or 1/4 byte; 2 bytes for every column of 2 and 3 groups, 4 and 6 with int4; biases of 1,280 bytes."""


@pytest.fixture(autouse=True)
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return own_disk(tmp_path, monkeypatch)


def original(layer: str, expert: int) -> ExpertWeights:
    """Random weights that depend on the expert."""
    generator = torch.Generator().manual_seed(100 * int(layer) + expert)
    return ExpertWeights((name, torch.randn(shape, generator=generator)) for name, shape in LAYOUT.tensors.items())


def fill(layer: str, expert: int, into: ExpertWeights) -> None:
    for name, tensor in original(layer, expert).items():
        into[name].copy_(tensor)


def written(precision: Precision) -> BackingFile:
    """The file of all experts in low precision."""
    return backing(packed_contents(ORIGINAL, precision), packing(fill, ORIGINAL.layouts, precision))


@pytest.mark.parametrize("precision", PRECISIONS.values(), ids=list(PRECISIONS))
def test_a_file_of_packed_experts_takes_their_bytes_and_is_read_from_the_disk(precision: Precision) -> None:
    """Pages of each entry by hand; the bytes that the kernel counts for this thread are those of the entries."""
    file, pages = written(precision), PAGES[precision.name]
    layout = file.contents.layouts["1"]
    assert file.path.stat().st_size == (1 + len(KEYS) * pages) * 4096
    assert layout.entry_bytes / LAYOUT.entry_bytes == pages / 49
    entry_B = layout.slab(1, "cpu")[0]
    file.read("1", 0, entry_B)  # whatever has to be loaded for the first read
    before = bytes_read()
    for layer, expert in KEYS * 4:
        file.read(layer, expert, entry_B.fill_(255))
        expected = pack(original(layer, expert), precision)
        assert all(torch.equal(view, expected[name]) for name, view in layout.entry(entry_B).items())
    assert bytes_read() - before == pytest.approx(4 * len(KEYS) * pages * 4096, rel=0.05)
    file.close()


def test_every_precision_has_its_own_file_and_the_original_keeps_its_own() -> None:
    contents = [ORIGINAL, *(packed_contents(ORIGINAL, precision) for precision in PRECISIONS.values())]
    other_scales = Precision("int4", 4, 32, (1.0,))
    assert len({one.path for one in [*contents, packed_contents(ORIGINAL, other_scales)]}) == 5
    assert b"precision" not in ORIGINAL.header
    assert b"name='int4', bits=4, group=32" in contents[2].header


def test_experts_of_less_than_a_page_have_no_packed_file() -> None:
    small = LayerContents.of(EntryLayout(MLP.shapes(8, 12, bias=True), torch.float32), NUM_EXPERTS)
    with pytest.raises(UsageError, match="int4: an expert would take 4 KiB instead of 4 KiB"):
        packed_contents(Contents(weights_hash="a hash", layers={"1": small}), PRECISIONS["int4"])
