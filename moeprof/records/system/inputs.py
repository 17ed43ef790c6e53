"""Files from outside: where their bytes become text, within a bound, whatever their compression, encoding and kind."""

import codecs
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from io import BufferedIOBase, BufferedReader, BytesIO
from pathlib import Path
from typing import Any, AnyStr

from moeprof.records.errors import OptionError, UsageError
from moeprof.records.system.archives import legible, opener_of
from moeprof.records.system.files import reason
from moeprof.records.system.parsing import JsonError, parsed_json
from moeprof.records.system.resources import free_memory
from moeprof.records.units import format_bytes, parse_bytes

HEAD_BYTES = 2**16
"""How much of a file is read to recognise its format."""

BLOCK_BYTES = 2**20
MAX_BYTES = "MOEPROF_MAX_BYTES"
"""Environment variable behind `--max-bytes`, which ranks and worker processes inherit."""

RANKS, READERS = "WORLD_SIZE", "MOEPROF_READERS"
"""Environment variables with the number of processes that each read the inputs: ranks, as torch's launcher names it, and the two sides
of interleaved measurements."""

SHARE = 32
"""Without `--max-bytes`, an input may take this part of the free memory: reading a route log takes 16 times the bytes of its text, and
a count table of small numbers 19 times."""

PACKED_BYTES, RATIO = 32 * 2**20, 16
"""Without `--max-bytes`, an archive may hold so many bytes, or so many times its own: those of text and of logs hold 3 to 5 times."""

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
"""Byte-order marks; that of UTF-32-LE begins with that of UTF-16-LE."""


FILLED = re.compile(r"\S[^\n]*")
"""A line that is not blank, from its first character that is not white space."""


class TooLargeError(ValueError):
    """An input has more bytes than may be read, or than an archive of its size holds of plain text."""


@dataclass(frozen=True)
class InputFile:
    """A file to read: a regular one is opened at every use, a pipe is read once and kept.

    Its methods raise OSError if the file cannot be read, and ValueError if its content is damaged or too large.
    """

    path: Path

    @classmethod
    def of(cls, file: "Path | InputFile") -> "InputFile":
        """The file at a path, or the file itself, so that what it has read of a pipe stays."""
        return cls(file) if isinstance(file, Path) else file

    @cached_property
    def head(self) -> bytes:
        """The first HEAD_BYTES bytes, decompressed."""
        with self.opened() as file, legible():
            return file.read(HEAD_BYTES)

    def read(self) -> bytes:
        """All bytes of the file, decompressed."""
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """All bytes of the file, decompressed, in blocks."""
        with self.opened() as file:
            yield from bounded(file, self.most_bytes())

    def text(self) -> str:
        """The whole file as text, each line end a line feed; ValueError, with line and column, if it is not text."""
        return "".join(self.texts())

    def texts(self) -> Iterator[str]:
        """The text of the file in pieces; errors as in `text`."""
        for piece in texts_of(self.blocks()):
            if "\0" in piece:
                before = "".join(texts_of(self.blocks())).partition("\0")[0]
                raise fault((1, 1), before.replace("\r", "\n"), "a NUL character, so this is not text")
            yield piece.replace("\r", "\n")

    def json(self) -> Any:
        """The document in the file; errors as in `parsed_json`."""
        return parsed_json(self.text())

    @property
    def head_text(self) -> str:
        """The first bytes as text, as far as they are text."""
        return self.head.decode(encoding_of(self.head), "ignore").removeprefix("\ufeff").replace("\r", "\n")

    @contextmanager
    def opened(self) -> Iterator[BufferedIOBase]:
        """The file for reading, decompressed if its first bytes are those of an archive."""
        with self.raw() as file:
            if not (opener := opener_of(file)):
                yield file
                return
            with opener(file) as unpacked:
                yield unpacked

    def raw(self) -> BufferedReader:
        """The file for reading, as it is."""
        return self.path.open("rb") if self.piped is None else BufferedReader(BytesIO(self.piped))

    @cached_property
    def packed(self) -> bool:
        """Whether the file is an archive, gzip or zstd."""
        with self.raw() as file:
            return opener_of(file) is not None

    def most_bytes(self) -> int:
        """The most bytes that are read, decompressed; without `--max-bytes` fewer of a packed file that is far larger inside."""
        if os.environ.get(MAX_BYTES) or not self.packed:
            return max_bytes()
        size_bytes = self.path.stat().st_size if self.piped is None else len(self.piped)
        return min(max_bytes(), max(PACKED_BYTES, RATIO * size_bytes))

    @cached_property
    def piped(self) -> bytes | None:
        """What a pipe or terminal holds; None for a regular file, ValueError for a device that never ends."""
        status = self.path.stat()
        mode = status.st_mode
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            return None
        if (known := PIPES.get(written(status))) is not None:
            return known
        if any(int(os.environ.get(name, "1")) > 1 for name in (RANKS, READERS)):
            raise ValueError("a pipe, which several processes cannot each read")
        with self.path.open("rb") as file:
            if (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)) and not file.isatty():
                raise ValueError("a device, not a file")
            content = b"".join(bounded(file, max_bytes()))
        PIPES[written(self.path.stat())] = content
        return content


PIPES: dict[tuple[int, int, int], bytes] = {}
"""What this process has read of pipes, which cannot be read twice, by `written`."""


def written(status: os.stat_result) -> tuple[int, int, int]:
    """Device, inode and time of the last write: the same as long as a pipe has no new content."""
    return status.st_dev, status.st_ino, status.st_mtime_ns


def texts_of(blocks: Iterable[bytes]) -> Iterator[str]:
    """Bytes as pieces of text, without byte-order mark and with CR LF read as LF; UTF-8 if no mark names another encoding.

    ValueError names the line and the column of what is not text.
    """
    source, held, at = iter(blocks), "", (1, 1)
    block = next(source, b"")
    encoding = encoding_of(block)
    decoder = codecs.getincrementaldecoder(encoding)()
    while True:
        try:
            piece = held + decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            before = held + error.object[: error.start].decode(encoding)
            raise fault(at, before, f"byte 0x{error.object[error.start]:02x} is not {encoding.upper()}") from error
        piece = piece.removeprefix("\ufeff") if at == (1, 1) else piece
        held = "\r" if block and piece.endswith("\r") else ""
        piece = piece.removesuffix(held)
        at = behind(at, piece)
        yield piece.replace("\r\n", "\n")
        if not block:
            return
        block = next(source, b"")


def whole_lines(texts: Iterable[AnyStr], end: AnyStr) -> Iterator[AnyStr]:
    """Pieces of text that end with a line, joined and cut from others; only LF ends a line, and the last one may have no end."""
    rest: list[AnyStr] = []
    for piece in texts:
        head, found, tail = piece.rpartition(end)
        if found:
            rest += [head, end]
            yield end[:0].join(rest)
            rest = []
        rest.append(tail)
    if last := end[:0].join(rest):
        yield last


def lines_of(texts: Iterable[str]) -> Iterator[str]:
    """Lines without their ends, of pieces of text; only LF ends a line."""
    for piece in whole_lines(texts, "\n"):
        yield from piece.removesuffix("\n").split("\n")


def filled_lines(texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    """The number and the text of every line that is not blank, without white space before it; no step of Python per blank line."""
    number = 1
    for piece in whole_lines(texts, "\n"):
        place = 0
        for found in FILLED.finditer(piece):
            number += piece.count("\n", place, found.start())
            place = found.start()
            yield number, found[0]
        number += piece.count("\n", place)


def encoding_of(data: bytes) -> str:
    """The encoding that the byte-order mark names, or UTF-8."""
    return next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")


def fault(at: tuple[int, int], before: str, what: str) -> ValueError:
    """An error, not yet raised, behind some text that begins at a line and column."""
    line, column = behind(at, before.removeprefix("\ufeff"))
    return ValueError(f"line {line}, column {column}: {what}")


def behind(at: tuple[int, int], text: str) -> tuple[int, int]:
    """The line and column behind a text that begins at a line and column."""
    lines = text.count("\n")
    return at[0] + lines, len(text) - text.rfind("\n") if lines else at[1] + len(text)


def bounded(file: BufferedIOBase, most: int) -> Iterator[bytes]:
    """Blocks to the end of the file; ValueError if the archive is damaged, or there are more than `most` bytes."""
    left = most
    with legible():
        while block := file.read(BLOCK_BYTES):
            if (left := left - len(block)) < 0:
                raise TooLargeError(f"more than {format_bytes(most)}")
            yield block


def check_memory(needed_bytes: int) -> None:
    """ValueError if the content of a file does not fit in the free memory."""
    if needed_bytes > (free := free_memory()):
        raise ValueError(f"its content takes {format_bytes(needed_bytes)}, but {format_bytes(free)} of memory are free")


def limit_inputs(size: str) -> None:
    """Sets the most bytes of one input, such as `2GiB`, for this process and those that it starts."""
    try:
        os.environ[MAX_BYTES] = str(parse_bytes(size))
    except ValueError as error:
        raise UsageError(f"--max-bytes {size}: {error}", "Example: --max-bytes 2GiB") from error


def max_bytes() -> int:
    """The most bytes of one input, decompressed: as set, or a share of the memory that is free."""
    given = os.environ.get(MAX_BYTES)
    return parse_bytes(given) if given else free_memory() // SHARE


@contextmanager
def reported(what: str, remedy: str, *, made_again: bool = False) -> Iterator[None]:
    """Turns what is wrong with an input into a UsageError of two lines: OSError and ValueError (pydantic's too).

    The remedy of an OptionError is its own, and that of a JsonError unless `remedy` says how the file is made again.
    """
    try:
        yield
    except TooLargeError as error:
        raise UsageError(f"{what}: {error}", "Set --max-bytes SIZE to read more, if the memory suffices.") from error
    except OptionError as error:
        raise UsageError(f"{what}: {error}", error.remedy) from error
    except JsonError as error:
        raise UsageError(f"{what}: {error}", remedy if made_again else error.remedy) from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{what}: {reason(error)}", remedy) from error
