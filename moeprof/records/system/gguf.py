"""Files in llama.cpp's format GGUF: their metadata and the tensors of 32-bit floats, within the bounds of the file."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_ENTRIES = 2**18
"""The most entries of metadata, tensors, and elements of a list."""

PLAIN = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Types of plain values, as `struct` names them."""

STRING, LIST, FLOAT32 = 8, 9, 0
MAX_DIMS, ALIGNMENT = 4, 32


@dataclass(frozen=True)
class Gguf:
    """The metadata by key, and where the tensors of 32-bit floats are."""

    content: bytes
    metadata: dict[str, Any]
    tensors: dict[str, tuple[tuple[int, ...], int]]
    """Shape, the fastest dimension last, and place in the content."""

    def tensor(self, name: str) -> npt.NDArray[np.float32]:
        """The values of a tensor; ValueError if the file ends before it does."""
        shape, place = self.tensors[name]
        size = int(np.prod([int(one) for one in shape], dtype=object))
        if place + 4 * size > len(self.content):
            raise ValueError(f"truncated: tensor {name} ends behind the file")
        return np.frombuffer(self.content, "<f4", size, place).reshape(shape)


class Cursor:
    """A place in the content; ValueError if the content ends before a value does."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, len(MAGIC)

    def take(self, kind: str) -> Any:
        """The next plain value."""
        size = struct.calcsize(f"<{kind}")
        if self.place + size > len(self.content):
            raise ValueError("truncated: it ends within its header")
        self.place += size
        return struct.unpack_from(f"<{kind}", self.content, self.place - size)[0]

    def text(self) -> str:
        """The next string, in UTF-8."""
        size = self.take("Q")
        if self.place + size > len(self.content):
            raise ValueError("truncated: it ends within its header")
        self.place += size
        return self.content[self.place - size : self.place].decode("utf-8", "replace")

    def value(self) -> Any:
        """The next value with its type before it; lists hold plain values or strings."""
        kind = self.take("I")
        if kind != LIST:
            return self.one(kind)
        element, number = self.take("I"), bounded(self.take("Q"), "elements of a list")
        return [self.one(element) for _ in range(number)]

    def one(self, kind: int) -> Any:
        """The next value of a type that is no list."""
        if kind == STRING:
            return self.text()
        if kind not in PLAIN:
            raise ValueError(f"a value of the unknown type {kind}")
        return self.take(PLAIN[kind])


def bounded(number: int, what: str) -> int:
    """The number; ValueError if a file of a sensible size cannot have so many."""
    if number > MAX_ENTRIES:
        raise ValueError(f"more than {MAX_ENTRIES:,} {what}")
    return number


def parsed(content: bytes) -> Gguf:
    """The content of a file; ValueError if it is damaged, truncated, or of another version."""
    cursor = Cursor(content)
    if not content.startswith(MAGIC) or (version := cursor.take("I")) not in VERSIONS:
        raise ValueError(
            f"GGUF version {version}, not {VERSIONS[0]} or {VERSIONS[1]}" if content.startswith(MAGIC) else "not GGUF"
        )
    num_tensors, num_entries = (bounded(cursor.take("Q"), what) for what in ("tensors", "entries of metadata"))
    metadata = {cursor.text(): cursor.value() for _ in range(num_entries)}
    found = list(described(cursor, num_tensors))
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if type(alignment) is not int or alignment < 1:
        raise ValueError(f"general.alignment is {alignment!r}")
    start = -(-cursor.place // alignment) * alignment
    return Gguf(content, metadata, {name: (shape, start + offset) for name, shape, kind, offset in found if kind == FLOAT32})


def described(cursor: Cursor, number: int) -> Iterator[tuple[str, tuple[int, ...], int, int]]:
    """Name, shape, type and offset of every tensor."""
    for _ in range(number):
        name, dims = cursor.text(), cursor.take("I")
        if not 1 <= dims <= MAX_DIMS:
            raise ValueError(f"tensor {name} has {dims} dimensions")
        shape = tuple(cursor.take("Q") for _ in range(dims))[::-1]
        yield name, shape, cursor.take("I"), cursor.take("Q")
