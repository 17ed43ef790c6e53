"""Reads of single tensors and rows from safetensors files give what safetensors gives, and touch no other bytes."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.system.files import PAGE
from moeprof.store import tensor_files
from moeprof.store.tensor_files import DTYPES, TensorFiles, header

KINDS = [dtype for name, dtype in DTYPES.items() if name not in ("F8_E8M0", "U64", "U32", "U16")]


def bytes_by_system_calls() -> int:
    """Bytes that this process has read from files, counted by the kernel."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("rchar:")).split()[1])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    tensors = {str(dtype): (torch.randn(7, 5) * 50).to(dtype) for dtype in KINDS}
    tensors |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 4),
        "long": torch.randn(9, 1000),
        "odd": torch.ones(3, dtype=torch.int8),
    }
    save_file(tensors, path := tmp_path / "file.safetensors")
    return path


@pytest.mark.parametrize("direct", [False, True])
def test_every_tensor_is_read_as_safetensors_reads_it(file: Path, direct: bool) -> None:
    files = TensorFiles(direct=direct)
    wanted, found = load_file(file), header(file)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        read = files.tensor(found[name], tensor.dtype)
        assert read.dtype == tensor.dtype
        assert read.shape == tensor.shape
        assert torch.equal(read.view(torch.uint8), tensor.view(torch.uint8)) if tensor.dim() else read == tensor
    files.close()


@pytest.mark.parametrize("direct", [False, True])
def test_a_tensor_longer_than_the_buffer_is_read_in_pieces(file: Path, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensor_files, "CHUNK", 9000)
    files, whole = TensorFiles(direct=direct), load_file(file)["long"]
    into = torch.zeros(1000, 9, dtype=torch.float64).T
    files.read(header(file)["long"], into)
    assert torch.equal(into, whole.double())
    assert torch.equal(files.tensor(header(file)["long"].row(4), torch.float32), whole[4])
    assert len(files.buffer_B) <= 9000 + 2 * PAGE


def test_nothing_but_the_row_itself_is_read(file: Path) -> None:
    files, row = TensorFiles(), header(file)["long"].row(3)
    files.tensor(row, torch.float32)
    before, counted = bytes_by_system_calls(), files.bytes_read
    idle = bytes_by_system_calls() - before
    files.tensor(row, torch.float32)
    assert bytes_by_system_calls() - before - 2 * idle == 4000 == files.bytes_read - counted


def test_direct_reads_take_whole_pages_around_the_row(file: Path) -> None:
    files = TensorFiles(direct=True)
    files.tensor(header(file)["long"].row(3), torch.float32)
    assert not files.direct or files.bytes_read in (PAGE, 2 * PAGE)


def test_tensors_at_odd_offsets_are_read(tmp_path: Path) -> None:
    entries = {
        "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "b": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    document = json.dumps(entries).encode()
    path = tmp_path / "odd.safetensors"
    path.write_bytes(struct.pack("<Q", len(document)) + document + b"\x07" + struct.pack("<2f", 1.5, -2.0))
    for direct in (False, True):
        assert TensorFiles(direct=direct).tensor(header(path)["b"], torch.float32).tolist() == [1.5, -2.0]


def test_a_file_system_without_direct_reads_is_read_through_the_page_cache(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tensor_files.os.open

    def opened(path: Path, flags: int) -> int:
        if flags & tensor_files.DIRECT:
            raise OSError(tensor_files.errno.EINVAL, "Invalid argument")
        return refusing(path, flags)

    monkeypatch.setattr(tensor_files.os, "open", opened)
    files = TensorFiles(direct=True)
    assert torch.equal(files.tensor(header(file)["long"], torch.float32), load_file(file)["long"])
    assert not files.direct


ENTRY = '"dtype": "F32", "shape": [2], "data_offsets": [0, 8]'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated, or not a safetensors file"),
        (struct.pack("<Q", 2**60) + b"{}", "its header has 1,152,921,504,606,846,976 bytes"),
        (b"PK\x03\x04" + bytes(100), "its header has"),
        (b"[1]", "not a safetensors file"),
        (b'{"a": 1}', "a: must be a valid dictionary"),
        (b'{"a": {"dtype": "F3", "shape": [2], "data_offsets": [0, 8]}}', "a has elements of the type F3"),
        (b'{"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}', "a.shape.0: must be greater than or equal to 0"),
        (b'{"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}', "a has 8 bytes, its shape 12"),
        (f'{{"a": {{{ENTRY}}}, "a": {{{ENTRY}}}}}'.encode(), "'a' occurs twice"),
        (f'{{"a": {{{ENTRY}}}}}'.encode(), "truncated after"),
    ],
)
def test_a_damaged_file_is_refused_in_two_lines(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content if content[:1] not in b"[{" or not content else struct.pack("<Q", len(content)) + content)
    with pytest.raises(UsageError) as caught:
        header(path)
    assert str(path) in caught.value.what
    assert message in caught.value.what


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        header(tmp_path / "none.safetensors")


@pytest.mark.parametrize("direct", [False, True])
def test_a_file_that_is_shortened_while_in_use_is_an_error(file: Path, direct: bool) -> None:
    source = max(header(file).values(), key=lambda tensor: tensor.offset)
    with file.open("r+b") as opened:
        opened.truncate(source.offset + source.num_bytes - 1)
    with pytest.raises(MoeprofError, match="shortened while in use"):
        TensorFiles(direct=direct).tensor(source, source.dtype)
