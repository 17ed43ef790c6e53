"""Standard streams that can be printed to whatever they are: of any encoding, closed, or a pipe whose reader has left."""

import codecs
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

PLAIN = dict(zip("░▒▓█·╌│┤─┬└…", ".:*#.-||-++.", strict=True)) | {"→": "->"}
"""ASCII in place of the characters that reports use; those of charts are as wide, so that charts stay charts."""

ERRORS = "moeprof"
"""The name under which `substitute` is known to codecs."""


def prepare() -> None:
    """Makes stdout and stderr accept every text; what a closed stream or pipe is sent is lost without an error."""
    codecs.register_error(ERRORS, substitute)
    open_closed_streams()
    sys.stdout, sys.stderr = tolerant(sys.stdout, 1), tolerant(sys.stderr, 2)


def open_closed_streams() -> None:
    """Opens the null device for closed streams: otherwise the next file, such as a run's, would get the number of stdout."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number


def tolerant(stream: TextIO | None, number: int) -> TextIO:
    """A stream of the same encoding that replaces what this lacks; `stream` is None if it was closed."""
    if stream is not None:
        stream.flush()
    output = io.BufferedWriter(Pipe(number, "w", closefd=False))
    lines = number == 2 or os.isatty(number)
    return io.TextIOWrapper(output, encoding=stream.encoding if stream else "utf-8", errors=ERRORS, line_buffering=lines)


class Pipe(io.FileIO):
    """A stream that discards everything after its reader has left, as `| head` does; the command still does its work."""

    def write(self, data: "Buffer") -> int:
        """Writes bytes to the stream, or to the null device; of other faults, such as a full disk, only the first is an OSError."""
        try:
            return super().write(data)
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if not isinstance(error, BrokenPipeError):
                raise
            return memoryview(data).nbytes


def substitute(error: UnicodeError) -> tuple[str | bytes, int]:
    """The codec error handler: a byte of a path that is not UTF-8 as it is, else an ASCII character or an escape as `\\u8a66`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character, after = error.object[error.start], error.start + 1
    if "\udc80" <= character <= "\udcff":
        return character.encode("ascii", "surrogateescape"), after
    return PLAIN.get(character) or character.encode("ascii", "backslashreplace").decode(), after
