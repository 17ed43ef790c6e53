"""Tensors in safetensors files: where each is, and reads that touch no bytes but its own.

The library safetensors maps whole files privately, which counts in full towards `ulimit -d` and goes through the page cache; these
reads take the memory that they fill and one buffer.
"""

import errno
import mmap
import os
import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Annotated

import torch
from pydantic import BaseModel, Field, TypeAdapter
from torch import Tensor

from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.limits import MAX_SIZE
from moeprof.records.system.disk import DIRECT
from moeprof.records.system.files import PAGE, reason
from moeprof.records.system.parsing import parsed_json
from moeprof.store.backing import bytes_of

LENGTH = struct.Struct("<Q")
"""Length of the JSON header, which follows it, in bytes."""

MAX_HEADER = 2**27
CHUNK = 2**24
"""Bytes that one call reads at most, unless a single row has more."""

SECTOR = 512
"""Direct reads that end elsewhere have met the end of the file."""

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "C64": torch.complex64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""Types of elements by their names in safetensors files; those narrower than a byte are missing."""

Extent = Annotated[int, Field(strict=True, ge=0, le=MAX_SIZE)]
AGAIN = "Download or save the checkpoint again."


class TensorEntry(BaseModel):
    """What the header of a file says of a tensor; offsets count from the end of the header."""

    dtype: str
    shape: tuple[Extent, ...]
    data_offsets: tuple[Extent, Extent]


ENTRIES = TypeAdapter(dict[str, TensorEntry])


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, or a part of one that is contiguous there."""

    name: str
    path: Path
    offset: int
    """Of its first byte in the file."""
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def kind(self) -> str:
        """Its shape and type for a message, such as `(2, 3) bfloat16`."""
        return f"{self.shape} {str(self.dtype).removeprefix('torch.')}"

    def rows(self, first: int, count: int) -> "Stored":
        """`count` rows of the first dimension."""
        row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        return replace(self, offset=self.offset + first * row_bytes, shape=(count, *self.shape[1:]))

    def row(self, index: int) -> "Stored":
        """One row, without the first dimension."""
        return replace(self.rows(index, 1), shape=self.shape[1:])


def header(path: Path) -> dict[str, Stored]:
    """The tensors of a file by name; UsageError if it is no safetensors file or shorter than its header says."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            (length,) = LENGTH.unpack(file.read(LENGTH.size))
            if not 0 < length <= min(MAX_HEADER, size - LENGTH.size):
                raise ValueError(f"its header has {length:,} bytes, the file {size:,}")
            document = dict(parsed_json(file.read(length)))
        document.pop("__metadata__", None)
        first = LENGTH.size + length
        found = {name: stored(name, path, first, entry) for name, entry in ENTRIES.validate_python(document).items()}
    except OSError as error:
        raise UsageError(f"checkpoint file {path}: {reason(error)}", AGAIN) from error
    except (struct.error, ValueError, TypeError) as error:
        raise UsageError(f"checkpoint file {path}: truncated, or not a safetensors file: {reason(error)}", AGAIN) from error
    if (end := max((each.offset + each.num_bytes for each in found.values()), default=first)) > size:
        raise UsageError(f"checkpoint file {path}: truncated after {size:,} of {end:,} bytes", AGAIN)
    return found


def stored(name: str, path: Path, first: int, entry: TensorEntry) -> Stored:
    """The tensor that an entry of a header describes; ValueError if the entry contradicts itself. `first` is where data begin."""
    if entry.dtype not in DTYPES:
        raise ValueError(f"{name} has elements of the type {entry.dtype}, which is not known")
    begin, end = entry.data_offsets
    tensor = Stored(name, path, first + begin, entry.shape, DTYPES[entry.dtype])
    if end - begin != tensor.num_bytes:
        raise ValueError(f"{name} has {end - begin:,} bytes, its shape {tensor.num_bytes:,}")
    return tensor


class TensorFiles:
    """Reads tensors from files that it opens at their first use; used from one thread only."""

    def __init__(self, *, direct: bool = False) -> None:
        """With `direct`, reads bypass the page cache in whole pages if the file system can do that."""
        self.direct = direct and DIRECT != 0
        self.descriptors: dict[Path, int] = {}
        self.buffer_B = torch.empty(0, dtype=torch.uint8)
        self.bytes_read = 0
        """Bytes that the system was asked for; with direct I/O up to two pages more than the tensors have, per read."""

    def tensor(self, source: Stored, dtype: torch.dtype) -> Tensor:
        """The tensor in another type of elements."""
        into = torch.empty(source.shape, dtype=dtype)
        self.read(source, into)
        return into

    @torch.no_grad()
    def read(self, source: Stored, into: Tensor) -> None:
        """Fills a tensor of the same shape, of any type, strides and device; MoeprofError if the file cannot be read."""
        if not source.shape:
            source, into = replace(source, shape=(1,)), into.view(1)
        count = max(CHUNK // max(source.row(0).num_bytes, 1), 1)
        for first in range(0, source.shape[0], count):
            chunk = source.rows(first, min(count, source.shape[0] - first))
            into[first : first + count].copy_(self.chunk(chunk))

    def chunk(self, source: Stored) -> Tensor:
        """The tensor as a view of the buffer, valid until the next read."""
        try:
            bytes_B = self.fetched(self.descriptor(source.path), source.offset, source.num_bytes)
        except OSError as error:
            raise MoeprofError(f"checkpoint file {source.path}: {source.name}: {reason(error)}", "Check the disk.") from error
        if len(bytes_B) < source.num_bytes:
            raise MoeprofError(f"checkpoint file {source.path}: it was shortened while in use", AGAIN)
        if bytes_B.storage_offset() % source.dtype.itemsize:
            bytes_B = bytes_B.clone()
        return bytes_B.view(source.dtype).view(source.shape)

    def fetched(self, descriptor: int, offset: int, count: int) -> Tensor:
        """Bytes of a file, fewer than `count` if it ends before; the system may return them in several pieces of whole pages."""
        unit = PAGE if self.direct else 1
        before = offset % unit
        needed, done = before + count, 0
        buffer = self.buffer(-(-needed // unit) * unit)
        while done < needed and (piece := os.preadv(descriptor, [buffer[done:]], offset - before + done)):
            done += piece
            if self.direct and done % SECTOR:  # the end of the file
                break
        self.bytes_read += len(buffer)
        return self.buffer_B[before : min(done, needed)]

    def buffer(self, num_bytes: int) -> memoryview:
        """The first bytes of the buffer, which grows if needed and begins at a page, as direct I/O needs it."""
        if num_bytes > len(self.buffer_B):
            memory = mmap.mmap(-1, -(-num_bytes // PAGE) * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self.buffer_B = torch.frombuffer(memory, dtype=torch.uint8)
        return bytes_of(self.buffer_B[:num_bytes])

    def descriptor(self, path: Path) -> int:
        """The open file; from the first file that cannot be read directly on, all are read through the page cache."""
        if path not in self.descriptors:
            try:
                self.descriptors[path] = os.open(path, os.O_RDONLY | (DIRECT if self.direct else 0))
            except OSError as error:
                if not self.direct or error.errno not in (errno.EINVAL, errno.ENOTSUP):
                    raise
                self.close()
                self.direct = False
                return self.descriptor(path)
        return self.descriptors[path]

    def close(self) -> None:
        """Closes all files; a read after it opens them again."""
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])
