"""Archives of one file: gzip and zstd, recognised by their first bytes and unpacked while they are read."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path

MAGIC_BYTES = 4
SUFFIXES = (".gz", ".zst")
"""Of the names of archives; what an archive is, its first bytes say."""


class ZstdFile(RawIOBase):
    """The unpacked bytes of a zstd archive, which are read once from the first to the last."""

    def __init__(self, file: BufferedIOBase) -> None:
        import pyarrow as pa  # here, because every command starts with this module and few read such an archive

        self.stream = pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd")

    def readable(self) -> bool:
        """Whether it can be read, as it always can."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fills a buffer as far as it can; OSError without a number if the archive is damaged."""
        block = self.stream.read(len(buffer))
        buffer[: len(block)] = block
        return len(block)


OPENERS: dict[bytes, Callable[[BufferedReader], BufferedIOBase]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"\x28\xb5\x2f\xfd": lambda file: BufferedReader(ZstdFile(file)),
}
"""By the first bytes of an archive."""


def unpacked_name(path: Path) -> Path:
    """The path without the suffix of an archive."""
    return path.with_suffix("") if path.suffix.lower() in SUFFIXES else path


def opener_of(file: BufferedReader) -> Callable[[BufferedReader], BufferedIOBase] | None:
    """What opens the archive that a file is; None for a file that is none."""
    begin = file.peek(MAGIC_BYTES)
    return next((opener for magic, opener in OPENERS.items() if begin.startswith(magic)), None)


@contextmanager
def legible() -> Iterator[None]:
    """Turns every fault of an archive into a ValueError in plain words; an error of the system stays."""
    try:
        yield
    except EOFError as error:
        raise ValueError("truncated gzip file") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"damaged gzip file: {error}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        truncated = "Truncated" in str(error)
        raise ValueError("truncated zstd file" if truncated else f"damaged zstd file: {error}") from error
