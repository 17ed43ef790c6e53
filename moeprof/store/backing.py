"""The file behind the slots: every expert of a model as an aligned record, written once, read past the page cache.

A memory-mapped file is RAM after the first touch; direct I/O makes every miss a real one. The header says what the file holds
and the checksum of every record. B bytes of a record.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from moeprof.records.disk import DIRECT, RAM, file_system
from moeprof.records.errors import MoeprofError, UsageError
from moeprof.records.files import PAGE, cache_folder, reason, replacing
from moeprof.records.units import format_bytes
from moeprof.store.record import RecordLayout
from moeprof.store.resident import ExpertWeights
from moeprof.store.tier import Fill

SCHEMA = 2
MAGIC = b"moeprof experts\n"
LENGTH = struct.Struct("<Q")
"""Of the JSON behind it."""

ELSEWHERE = "Set XDG_CACHE_HOME to a folder on a disk."
ROOM = "Make room, or set XDG_CACHE_HOME to a folder on a disk that has it."
ANEW = "Delete it: it is written again when it is needed."
Checksums = npt.NDArray[np.uint32]


class Contents(BaseModel):
    """What a file holds: the experts of these layers, layer by layer and expert by expert."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    schema_version: int = SCHEMA
    weights_hash: str
    tensors: dict[str, tuple[int, ...]]
    """Shapes of one expert's tensors by name."""
    dtype: str
    num_experts: int
    layers: list[str]

    @property
    def layout(self) -> RecordLayout:
        """Of its records."""
        return RecordLayout(self.tensors, getattr(torch, self.dtype))

    @property
    def num_records(self) -> int:
        """Of all layers."""
        return len(self.layers) * self.num_experts

    @property
    def header(self) -> bytes:
        """What stands in front of the checksums."""
        document = self.model_dump_json().encode()
        return MAGIC + LENGTH.pack(len(document)) + document

    @property
    def first_record(self) -> int:
        """Where it begins: at the page behind the checksums."""
        return -(-(len(self.header) + 4 * self.num_records) // PAGE) * PAGE

    @property
    def file_bytes(self) -> int:
        """Of the whole file."""
        return self.first_record + self.num_records * self.layout.record_bytes

    @property
    def path(self) -> Path:
        """Where it is kept; deleting it has it written again."""
        name = hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]
        return cache_folder() / "experts" / f"{name}.experts"


def backing(contents: Contents, fill: Fill) -> "BackingFile":
    """The file of these contents, written now where it is not there yet; other processes wait for the one that writes it."""
    path = contents.path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_ram(path.parent)
        if not path.exists():  # where it is, it is whole, and a folder that cannot be written will do
            with locked(path.with_suffix(".lock")):
                if not path.exists():
                    write(path, contents, fill)
    except OSError as error:
        raise UsageError(
            f"expert file {path}: {reason(error)}", "Set XDG_CACHE_HOME to a folder that can be written."
        ) from error
    return BackingFile(path, contents)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; one that dies gives it free. UsageError where a file could be written, and then not be read."""
    with path.open("w") as file:
        os.close(direct(path))
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def direct(path: Path) -> int:
    """A descriptor that reads past the page cache; UsageError where the file system has none."""
    try:
        return os.open(path, os.O_RDONLY | DIRECT)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
        kind = file_system(path.parent) or "its file system"
        raise UsageError(f"expert file in {path.parent}: {kind} has no direct I/O ({reason(error)})", ELSEWHERE) from error


def refuse_ram(folder: Path) -> None:
    """UsageError where the folder is memory: reading from there would not be a miss."""
    kind = file_system(folder)
    if kind in RAM:
        raise UsageError(f"expert file in {folder}: {kind} is memory, not a slower tier", ELSEWHERE)


def write(path: Path, contents: Contents, fill: Fill) -> None:
    """All records, and then the header; MoeprofError where the disk has no room. What is not whole never gets the file's name."""
    what = f"expert file {path} of {format_bytes(contents.file_bytes)}"
    try:
        with replacing(path) as partial:
            partial.unlink(missing_ok=True)  # of a process that was killed: it takes room
            if (free := shutil.disk_usage(path.parent).free) < contents.file_bytes:
                raise MoeprofError(f"{what}: {format_bytes(free)} are free on its disk", ROOM)
            with partial.open("wb") as file:
                write_records(file, contents, fill)
                file.flush()
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError as error:
        raise MoeprofError(f"{what}: {reason(error)} while it was written", ROOM) from error


def write_records(file: IO[bytes], contents: Contents, fill: Fill) -> None:
    """One at a time, through one buffer."""
    layout, checksums = contents.layout, []
    slab_1B = layout.slab(1, "cpu")
    views = layout.weights(slab_1B).map(lambda whole: whole[0])
    file.seek(contents.first_record)
    for layer in contents.layers:
        for expert in range(contents.num_experts):
            filled(fill, layer, expert, views)
            checksums.append(zlib.crc32(bytes_of(slab_1B)))
            file.write(bytes_of(slab_1B))
    file.seek(0)
    file.write(contents.header + np.array(checksums, "<u4").tobytes())


def filled(fill: Fill, layer: str, expert: int, into: ExpertWeights) -> None:
    """What goes wrong where weights come from is not the fault of the disk that they go to."""
    try:
        fill(layer, expert, into)
    except OSError as error:
        what = f"expert {expert} of layer {layer} has no weights: {reason(error)}"
        raise MoeprofError(what, "Look at the checkpoint, and at the disk that it is on.") from error


class BackingFile:
    """The open file: a tier that reads records straight from the disk, each of them checked the first time it is read."""

    def __init__(self, path: Path, contents: Contents) -> None:
        """MoeprofError where it is not what it should be; UsageError where its file system has no direct I/O."""
        self.path, self.contents = path, contents
        self.record_bytes = contents.layout.record_bytes
        self.places = {layer: index * contents.num_experts for index, layer in enumerate(contents.layers)}
        self.unchecked = set(range(contents.num_records))
        try:
            self.checksums = self.header_read()
            self.descriptor = direct(path)
        except OSError as error:
            remedy = "See that it can be read; where it is not there, it is written when it is needed."
            raise self.unusable(reason(error), remedy) from error
        self.state = self.look()

    def header_read(self) -> Checksums:
        """The checksums; MoeprofError where the file is another one, or not whole."""
        header, count = self.contents.header, self.contents.num_records
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            found = file.read(len(header))
            if found != header:
                raise self.unusable(difference(found + file.read(PAGE), self.contents))
            checksums = file.read(4 * count)
        if size != self.contents.file_bytes:
            raise self.unusable(f"it has {size:,} bytes, not {self.contents.file_bytes:,}")
        return np.frombuffer(checksums, "<u4")

    def look(self) -> tuple[int, int]:
        """Length and time of the last change: what does not change while the file is left alone."""
        found = os.fstat(self.descriptor)
        return found.st_size, found.st_mtime_ns

    def read(self, layer: str, expert: int, into_B: Tensor) -> None:
        """One record; MoeprofError where the disk fails, the file changed, or what came is not what was written."""
        record = self.places[layer] + expert
        try:
            num_bytes = self.fetched(bytes_of(into_B), self.contents.first_record + record * self.record_bytes)
        except OSError as error:
            what = f"expert {expert} of layer {layer} could not be read: {reason(error)}"
            raise self.unusable(what, f"Look at the disk. {ANEW}") from error
        if self.look() != self.state:  # asked after reading: a change before or meanwhile shows
            raise self.unusable("it was changed while it was in use")
        if num_bytes != self.record_bytes:
            raise self.unusable(f"expert {expert} of layer {layer} ends after {num_bytes:,} bytes")
        if record in self.unchecked:
            if zlib.crc32(bytes_of(into_B)) != self.checksums[record]:
                raise self.unusable(f"expert {expert} of layer {layer} is not what was written (checksum)")
            self.unchecked.discard(record)

    def fetched(self, buffer: memoryview, offset: int) -> int:
        """Bytes read into the buffer; the kernel may give them in several pieces of whole pages."""
        done = 0
        while done < len(buffer) and (count := os.preadv(self.descriptor, [buffer[done:]], offset + done)):
            done += count
        return done

    def unusable(self, why: str, remedy: str = ANEW) -> MoeprofError:
        """Says what is wrong with the file, and how to have it made anew."""
        return MoeprofError(f"expert file {self.path}: {why}", remedy)

    def close(self) -> None:
        """Gives the descriptor back."""
        os.close(self.descriptor)


def bytes_of(records: Tensor) -> memoryview:
    """The memory of records on a CPU, one byte after another."""
    return memoryview(records.view(-1).numpy().data)


def difference(found: bytes, contents: Contents) -> str:
    """Why the first bytes of a file are not the header of these contents."""
    if not found.startswith(MAGIC):
        return "it is no file of experts"
    try:
        start = len(MAGIC) + LENGTH.size
        (length,) = LENGTH.unpack(found[len(MAGIC) : start])
        theirs = dict(json.loads(found[start : start + length]))
    except (struct.error, TypeError, ValueError):
        return "its header is damaged"
    ours = contents.model_dump(mode="json")
    name = next((key for key, value in ours.items() if theirs.get(key) != value), "header")
    return f"its {name} is another one"
