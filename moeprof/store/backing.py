"""The expert file behind the cache slots: an aligned entry for every expert, written once and read past the page cache.

A memory-mapped file is RAM after the first access; with direct I/O every miss reads the disk. The header describes the
contents, and a checksum of every entry follows it. B bytes of an entry.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.system.disk import DIRECT, RAM, file_system
from moeprof.records.system.files import PAGE, cache_folder, reason, replacing_file
from moeprof.records.system.parsing import parsed_json
from moeprof.records.units import format_bytes
from moeprof.store.entry import EntryLayout
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill, TierName

SCHEMA = 3
MAGIC = b"moeprof experts\n"
LENGTH = struct.Struct("<Q")
"""Length of the JSON document that follows, in bytes."""

ELSEWHERE = "Set XDG_CACHE_HOME to a folder on a disk."
ROOM = "Free some disk space, or set XDG_CACHE_HOME to a folder on a larger disk."
ANEW = "Delete the file; it is written again when it is needed."
Checksums = npt.NDArray[np.uint32]


class LayerContents(BaseModel):
    """The experts of one layer."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    num_experts: int
    tensors: dict[str, tuple[int, ...]]
    """Shapes of one expert's tensors by name."""
    dtype: str
    other_dtypes: dict[str, str] = {}
    """Dtypes of the tensors that have another one."""

    @classmethod
    def of(cls, layout: EntryLayout, num_experts: int) -> "LayerContents":
        """A layer of experts that all have this layout."""
        others = {name: name_of(dtype) for name, dtype in layout.other_dtypes.items()}
        return cls(num_experts=num_experts, tensors=dict(layout.tensors), dtype=name_of(layout.dtype), other_dtypes=others)

    @property
    def layout(self) -> EntryLayout:
        """The layout of each entry."""
        others = {name: getattr(torch, dtype) for name, dtype in self.other_dtypes.items()}
        return EntryLayout(self.tensors, getattr(torch, self.dtype), others)


class Contents(BaseModel):
    """The header of an expert file, whose entries are ordered by layer and then by expert; layers may differ in size."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = SCHEMA
    weights_hash: str
    layers: dict[str, LayerContents]
    precision: str | None = None
    """How the experts are packed; the weights are the original ones if it is missing."""

    @property
    def layouts(self) -> dict[str, EntryLayout]:
        """The layout of each layer's entries."""
        return {name: layer.layout for name, layer in self.layers.items()}

    @property
    def num_entries(self) -> int:
        """Number of entries of all layers."""
        return sum(layer.num_experts for layer in self.layers.values())

    @property
    def document(self) -> bytes:
        """The JSON document that describes the file."""
        return self.model_dump_json(exclude_none=True).encode()

    @property
    def header(self) -> bytes:
        """The bytes in front of the checksums."""
        document = self.document
        return MAGIC + LENGTH.pack(len(document)) + document

    @property
    def first_entry(self) -> int:
        """Offset of the first entry: the first page after the checksums."""
        return -(-(len(self.header) + 4 * self.num_entries) // PAGE) * PAGE

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        return self.first_entry + sum(layer.num_experts * layer.layout.entry_bytes for layer in self.layers.values())

    @property
    def path(self) -> Path:
        """Where the file is kept; a deleted file is written again."""
        name = hashlib.sha256(self.document).hexdigest()[:16]
        return cache_folder() / "experts" / f"{name}.experts"


def backing(contents: Contents, fill: Fill) -> "BackingFile":
    """Opens the file with these contents and writes it first if it is absent; other processes wait until it is written."""
    path = contents.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_ram(path.parent)
        if not path.exists():  # a file that exists is complete, so its folder may be read-only
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    write(path, contents, fill)
    except OSError as error:
        raise UsageError(f"expert file {path}: {reason(error)}", "Set XDG_CACHE_HOME to a writable folder.") from error
    return BackingFile(path, contents)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that ends with the process. UsageError if a file written here could not be read with direct I/O."""
    with path.open("w") as file:
        os.close(direct(path))
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def direct(path: Path) -> int:
    """A file descriptor that reads past the page cache; UsageError if the file system has no direct I/O."""
    try:
        return os.open(path, os.O_RDONLY | DIRECT)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        kind = file_system(path.parent) or "its file system"
        raise UsageError(f"expert file in {path.parent}: {kind} has no direct I/O ({reason(error)})", ELSEWHERE) from error


def refuse_ram(folder: Path) -> None:
    """UsageError if the folder is in memory, where reading would cost less than a miss should."""
    kind = file_system(folder)
    if kind in RAM:
        raise UsageError(f"expert file in {folder}: {kind} is memory, not a slower tier", ELSEWHERE)


def write(path: Path, contents: Contents, fill: Fill) -> None:
    """Writes all entries and then the header; MoeprofError if the disk is full. An incomplete file never gets this name."""
    what = f"expert file {path} of {format_bytes(contents.file_bytes)}"
    try:
        with replacing_file(path) as partial:
            partial.unlink(missing_ok=True)  # left by a process that was killed
            if (free := shutil.disk_usage(path.parent).free) < contents.file_bytes:
                raise MoeprofError(f"{what}: only {format_bytes(free)} are free on its disk", ROOM)
            with partial.open("wb") as file:
                write_entries(file, contents, fill)
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise MoeprofError(f"{what}: {reason(error)} while writing it", ROOM) from error


def write_entries(file: IO[bytes], contents: Contents, fill: Fill) -> None:
    """Writes one entry after another, each layer's through one buffer, then header and checksums."""
    checksums = []
    file.seek(contents.first_entry)
    for name, layer in contents.layers.items():
        entry_B = layer.layout.slab(1, "cpu")[0]
        views = layer.layout.entry(entry_B)
        for expert in range(layer.num_experts):
            filled(fill, name, expert, views)
            checksums.append(zlib.crc32(bytes_of(entry_B)))
            file.write(bytes_of(entry_B))
    file.seek(0)
    file.write(contents.header + np.array(checksums, "<u4").tobytes())


def filled(fill: Fill, layer: str, expert: int, into: ExpertWeights) -> None:
    """Fills an entry; an error of the checkpoint is reported as such and not as one of the disk written to."""
    try:
        fill(layer, expert, into)
    except OSError as error:
        what = f"expert {expert} of layer {layer} has no weights: {reason(error)}"
        raise MoeprofError(what, "Check the checkpoint and the disk that it is on.") from error


class Place(NamedTuple):
    """Where the entries of one layer are in the file."""

    first: int
    """Number of the layer's first entry."""
    offset: int
    """Where that begins, bytes."""
    entry_bytes: int


def places(contents: Contents) -> dict[str, Place]:
    """The place of every layer."""
    found, first, offset = {}, 0, contents.first_entry
    for name, layer in contents.layers.items():
        found[name] = Place(first, offset, layer.layout.entry_bytes)
        first, offset = first + layer.num_experts, offset + layer.num_experts * layer.layout.entry_bytes
    return found


class BackingFile:
    """The open file: a tier that reads entries directly from disk and verifies the checksum on the first read of each."""

    def __init__(self, path: Path, contents: Contents) -> None:
        """MoeprofError if the file is damaged or has other contents; UsageError if its file system has no direct I/O."""
        self.path, self.contents = path, contents
        self.places = places(contents)
        self.unchecked = set(range(contents.num_entries))
        try:
            self.checksums = self.header_read()
            self.descriptor = direct(path)
        except OSError as error:
            remedy = "Make it readable; if it is missing, it is written when it is needed."
            raise self.unusable(reason(error), remedy) from error
        self.opened_stamp = self.stamp()

    def header_read(self) -> Checksums:
        """The checksums; MoeprofError if the file has another header or is incomplete."""
        header, count = self.contents.header, self.contents.num_entries
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            found = file.read(len(header))
            if found != header:
                raise self.unusable(difference(found + file.read(PAGE), self.contents))
            checksums = file.read(4 * count)
        if size != self.contents.file_bytes:
            raise self.unusable(f"size is {size:,} bytes instead of {self.contents.file_bytes:,}")
        return np.frombuffer(checksums, "<u4")

    def stamp(self) -> tuple[int, int]:
        """Length and time of last modification, which stay the same unless the file is changed."""
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def read(self, layer: str, expert: int, into_B: Tensor) -> TierName:
        """Reads one entry, of the file; MoeprofError if the disk fails, the file was changed or the checksum differs."""
        place = self.places[layer]
        try:
            num_bytes = self.fetched(bytes_of(into_B), place.offset + expert * place.entry_bytes)
        except OSError as error:
            what = f"expert {expert} of layer {layer} could not be read: {reason(error)}"
            raise self.unusable(what, f"Check the disk. {ANEW}") from error
        if self.stamp() != self.opened_stamp:  # after reading, so that a change before or during the read is seen
            raise self.unusable("it was changed while in use")
        if num_bytes != place.entry_bytes:
            raise self.unusable(f"expert {expert} of layer {layer} ends after {num_bytes:,} bytes")
        if (entry := place.first + expert) in self.unchecked:
            if zlib.crc32(bytes_of(into_B)) != self.checksums[entry]:
                raise self.unusable(f"expert {expert} of layer {layer} has a wrong checksum")
            self.unchecked.discard(entry)
        return "file"

    def fetched(self, buffer: memoryview, offset: int) -> int:
        """Fills the buffer and returns the bytes read; the operating system may return them in several pieces of whole pages."""
        done = 0
        while done < len(buffer) and (count := os.preadv(self.descriptor, [buffer[done:]], offset + done)):
            done += count
        return done

    def unusable(self, why: str, remedy: str = ANEW) -> MoeprofError:
        """The error for this file, with a remedy."""
        return MoeprofError(f"expert file {self.path}: {why}", remedy)

    def close(self) -> None:
        """Closes the file descriptor."""
        os.close(self.descriptor)


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype in the module torch."""
    return str(dtype).removeprefix("torch.")


def bytes_of(records: Tensor) -> memoryview:
    """The memory of entries on a CPU as bytes."""
    return memoryview(records.view(-1).numpy().data)


def difference(found: bytes, contents: Contents) -> str:
    """Why the first bytes of a file are not the header of these contents, for an error message."""
    if not found.startswith(MAGIC):
        return "not an expert file"
    try:
        start = len(MAGIC) + LENGTH.size
        (length,) = LENGTH.unpack(found[len(MAGIC) : start])
        theirs = dict(parsed_json(found[start : start + length]))
    except (struct.error, TypeError, ValueError):
        return "damaged header"
    ours = contents.model_dump(mode="json")
    name = next((key for key, value in ours.items() if theirs.get(key) != value), "header")
    return f"{name} differs from what was expected"
